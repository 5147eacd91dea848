// Live events: `GET /api/events` as server-sent events (WHATWG HTML §9.2). The feed is looked at twice a second while
// somebody listens; a reader that lags behind is let go and may come back with the last id that it has seen.

import EventLoop
import FoundationEssentials
import Gateway
import LinuxIO
import Primitives

final class EventStreams {
    private final class Reader {
        let stream: AnswerStream
        var seen: UInt64
        init(_ stream: AnswerStream, seen: UInt64) {
            self.stream = stream
            self.seen = seen
        }
    }

    private let feed: EventFeed
    private let loop: Loop
    private var readers: [Reader] = []
    private var timer: LoopTimer!
    private var quietTurns = 0

    /// Dashboards of a team; each costs a connection and a look at the feed.
    private static let readersMax = 32
    private static let interval = TimeSpan.milliseconds(500)
    /// Looks without news until a line says that the stream lives: proxies close what is silent for a minute.
    private static let quietTurnsMax = 30
    /// Events of the past that a newcomer gets; who has seen one gets all behind it that the feed has.
    private static let pastMax: UInt64 = 50

    init(_ feed: EventFeed, loop: Loop) {
        self.feed = feed
        self.loop = loop
        timer = LoopTimer(loop) { [weak self] in self?.look() }
    }

    func answer(_ request: SmallRequest) -> SmallAnswer {
        guard readers.count < Self.readersMax else { return .problem(503, "Too many listen to events") }
        let last = feed.last
        // A browser that comes back by itself asks as it did first, and says in a field what it has seen since.
        let asked = request.query.split(separator: "&").filter { $0.hasPrefix("after=") }.map { $0.dropFirst(6) }
        let known = (asked + [request.lastEventID[...]]).compactMap { UInt64($0) }.filter { 0 < $0 && $0 <= last }
        let seen = known.max() ?? last - min(last, Self.pastMax)
        var answer = SmallAnswer(contentType: "text/event-stream", body: Array("retry: 2000\n\n".utf8))
        answer.follow = { [weak self] stream in self?.join(Reader(stream, seen: seen)) }
        return answer
    }

    private func join(_ reader: Reader) {
        readers.append(reader)
        look()
    }

    private func look() {
        quietTurns += 1
        let isQuiet = quietTurns >= Self.quietTurnsMax
        if isQuiet { quietTurns = 0 }
        readers.removeAll { reader in
            guard reader.stream.isOpen else { return true }
            let events = feed.events(after: reader.seen)
            guard let last = events.last else { return isQuiet && !reader.stream.write(": still here\n\n") }
            reader.seen = last.id
            let text = events.map { "id: \($0.id)\ndata: \(Self.json($0))\n\n" }.joined()
            return !reader.stream.write(text)
        }
        if !readers.isEmpty { timer.schedule(after: Self.interval) }
    }

    struct Row: Encodable {
        var id: UInt64
        var time: String
        var level: String
        var message: String
        var fields: [String: String]

        init(_ event: EventFeed.Event) {
            id = event.id
            time = SystemClock.timestamp(microseconds: event.time)
            level = event.level
            message = event.message
            fields = Dictionary(event.fields.map { ($0.name, $0.value) }) { first, _ in first }
        }
    }

    /// On one line, as JSON is without formatting.
    private static func json(_ event: EventFeed.Event) -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        guard let data = try? encoder.encode(Row(event)) else { return "{}" }
        return String(decoding: data, as: UTF8.self)
    }
}
