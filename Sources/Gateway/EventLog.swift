// Where the events of a process go: to standard error, by way of a queue and a thread that nobody waits for. A reader that
// stands still, or a pipe that nobody reads, costs lines and nothing else.

package import Configuration
import LinuxIO
package import Logging
import Primitives
package import Supervision
import Synchronization

package final class EventLog: Sendable {
    /// This process's.
    package static let standardError = EventLog()

    /// What is logged, and how it looks.
    package struct Style: Sendable {
        package var isJSON = false
        package var level = Logger.Level.info
    }

    private let sink: LogSink
    private let styleNow = Mutex(Style())
    package let losses: LogLosses

    private init() {
        let losses = LogLosses()
        self.losses = losses
        // Without a descriptor to spare it is written to as it is.
        sink = LogSink(
            (try? OutputFile.standardError()) ?? Descriptor(adopting: 2), name: "the event log", thread: "event-log",
            losses: losses, bytesMax: DataPathLimits.eventBytesMax, closeTime: DataPathLimits.eventCloseTime)
    }

    /// Changes with the configuration in force; every logger of the process goes by it at once.
    package var style: Style { styleNow.withLock { $0 } }

    package func follow(_ gateway: Configuration.Gateway) {
        let level = Logger.Level(rawValue: gateway.logLevel.rawValue) ?? .info
        styleNow.withLock { $0 = Style(isJSON: gateway.logFormat == .json, level: level) }
    }

    /// The same in a supervisor, which hears of it from its node.
    package func follow(_ manner: Manner) {
        let level = Logger.Level(rawValue: manner.level) ?? .info
        styleNow.withLock { $0 = Style(isJSON: manner.isJSON, level: level) }
    }

    /// Puts a line into the queue. Never waits.
    package func write(_ line: String) { sink.write(Array("\(line)\n".utf8), count: 1) }

    /// Hears when lines are lost, and when that is over.
    package func listen(_ listener: @escaping LogSink.Listener) { sink.listen(listener) }

    /// Waits for a moment until what was written is out.
    package func flush() { sink.flush(atMost: DataPathLimits.eventCloseTime) }

    /// The same, and what comes later is lost.
    package func close() { sink.close() }
}

extension Manner {
    /// What a supervisor should know of a configuration.
    package init(_ gateway: Configuration.Gateway) {
        self.init(
            isJSON: gateway.logFormat == .json, level: gateway.logLevel.rawValue,
            endTime: gateway.drain.delay + gateway.drain.timeout)
    }
}
