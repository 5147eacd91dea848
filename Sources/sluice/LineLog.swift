// Events as lines of the event log, one each, as text or JSON.

import FoundationEssentials
import Gateway
import LinuxIO
import Logging

struct LineLog: LogHandler {
    var metadata: Logger.Metadata = [:]
    private let lines = EventLog.standardError

    static func logger() -> Logger { Logger(label: "sluice") { _ in LineLog() } }

    /// As the configuration in force has it, for all loggers alike.
    var logLevel: Logger.Level {
        get { lines.style.level }
        // One logger has no level of its own.
        set {}
    }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        let time = SystemClock.timestamp(microseconds: SystemClock.wallMicroseconds())
        let fields = metadata.merging(event.metadata ?? [:]) { $1 }.sorted { $0.key < $1.key }
        if lines.style.isJSON {
            var object = ["time": time, "level": event.level.rawValue, "message": "\(event.message)"]
            for (key, value) in fields { object[key] = value.description }
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
            guard let data = try? encoder.encode(object) else { return }
            lines.write(String(decoding: data, as: UTF8.self))
        } else {
            let tail = fields.map { " \($0.key)=\(Self.quoted($0.value.description))" }.joined()
            lines.write("\(time) \(event.level.rawValue) \(Self.oneLine("\(event.message)"))\(tail)")
        }
    }

    /// What comes from outside must not begin a line of its own.
    private static func oneLine(_ text: String) -> String {
        String(text.map { $0.isNewline ? " " : $0 })
    }

    private static func quoted(_ text: String) -> String {
        let plain = !text.isEmpty && text.allSatisfy { $0.isASCII && !$0.isWhitespace && $0 != "\"" && $0 != "=" }
        return plain ? text : "\"\(oneLine(text).replacing("\"", with: "'"))\""
    }
}
