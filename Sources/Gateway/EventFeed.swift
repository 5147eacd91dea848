// What has happened lately, for those who watch: the lines of this process's log from `notice` up, in a ring. Made of the
// log, so that nothing is told in one place and not in the other.

import LinuxIO
import Logging
import Synchronization

package final class EventFeed: Sendable {
    package struct Event: Sendable {
        /// Counts up, also over runs; who has seen one asks for what came after it.
        package var id: UInt64
        /// Microseconds since 1970.
        package var time: Int64
        package var level: String
        package var message: String
        package var fields: [(name: String, value: String)]
    }

    private struct State {
        var events: [Event] = []
        var last: UInt64
    }

    private let state: Mutex<State>

    package static let eventsMax = 200
    private static let textMax = 400

    /// Counts from the milliseconds since 1970 on: an id of an earlier run is below all of this one, and nobody who
    /// comes back with it misses an event.
    package init() { state = Mutex(State(last: UInt64(max(0, SystemClock.wallMicroseconds() / 1_000)))) }

    func add(_ level: String, _ message: String, _ fields: [(name: String, value: String)], at time: Int64) {
        state.withLock { state in
            state.last += 1
            if state.events.count == Self.eventsMax { state.events.removeFirst() }
            state.events.append(
                Event(
                    id: state.last, time: time, level: level, message: String(message.prefix(Self.textMax)),
                    fields: fields.map { ($0.name, String($0.value.prefix(Self.textMax))) }))
        }
    }

    /// What came after an event; of those that are still known.
    package func events(after id: UInt64) -> [Event] { state.withLock { $0.events.filter { $0.id > id } } }
    package var last: UInt64 { state.withLock { $0.last } }
}

/// Hands lines to the feed and on to the log.
struct EventTap: LogHandler {
    private let feed: EventFeed
    private var inner: any LogHandler

    init(_ inner: any LogHandler, _ feed: EventFeed) {
        self.inner = inner
        self.feed = feed
    }

    /// The feed wants notices even of a log that is quieter.
    var logLevel: Logger.Level {
        get { min(inner.logLevel, .notice) }
        set { inner.logLevel = newValue }
    }

    var metadata: Logger.Metadata {
        get { inner.metadata }
        set { inner.metadata = newValue }
    }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { inner[metadataKey: key] }
        set { inner[metadataKey: key] = newValue }
    }

    func log(event: LogEvent) {
        if event.level >= .notice {
            let fields = (event.metadata ?? [:]).map { (name: $0.key, value: $0.value.description) }
            feed.add(
                event.level.rawValue, "\(event.message)", fields.sorted { $0.name < $1.name },
                at: SystemClock.wallMicroseconds())
        }
        if event.level >= inner.logLevel { inner.log(event: event) }
    }
}
