// Events as lines on standard error, one each, as text or JSON.

import Configuration
import FoundationEssentials
import LinuxIO
import Logging

struct LineLog: LogHandler {
    var metadata: Logger.Metadata = [:]
    var logLevel: Logger.Level
    private let format: Configuration.LogFormat

    /// A logger as a configuration wants it.
    @Sendable
    static func logger(_ gateway: Configuration.Gateway) -> Logger {
        let level = Logger.Level(rawValue: gateway.logLevel.rawValue) ?? .info
        return Logger(label: "sluice") { _ in LineLog(format: gateway.logFormat, level: level) }
    }

    private init(format: Configuration.LogFormat, level: Logger.Level) {
        self.format = format
        logLevel = level
    }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        let time = SystemClock.timestamp(microseconds: SystemClock.wallMicroseconds())
        let fields = metadata.merging(event.metadata ?? [:]) { $1 }.sorted { $0.key < $1.key }
        switch format {
        case .text:
            let tail = fields.map { " \($0.key)=\(Self.quoted($0.value.description))" }.joined()
            printError("\(time) \(event.level.rawValue) \(Self.oneLine("\(event.message)"))\(tail)")
        case .json:
            var object = ["time": time, "level": event.level.rawValue, "message": "\(event.message)"]
            for (key, value) in fields { object[key] = value.description }
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
            guard let data = try? encoder.encode(object) else { return }
            printError(String(decoding: data, as: UTF8.self))
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
