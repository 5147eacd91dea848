// What a node's parent knows of the configuration in force: how its own lines look, and how long an orderly end may take;
// and the text of it, for the next process where the file has become useless.

package import LinuxIO
package import Primitives

package struct Manner: Equatable, Sendable {
    package var isJSON: Bool
    /// In the words of swift-log.
    package var level: String
    /// From the signal to the end of the last connection.
    package var endTime: TimeSpan

    package init(isJSON: Bool, level: String, endTime: TimeSpan) {
        self.isJSON = isJSON
        self.level = level
        self.endTime = endTime
    }

    package var text: String { "\(isJSON ? "json" : "text") \(level) \(endTime.milliseconds)" }

    package init?(_ text: String) {
        let parts = text.split(separator: " ")
        guard parts.count == 3, let milliseconds = Int64(parts[2]), milliseconds >= 0,
            milliseconds <= Self.endTimeMax.milliseconds
        else { return nil }
        self.init(isJSON: parts[0] == "json", level: String(parts[1]), endTime: .milliseconds(milliseconds))
    }

    /// Days: far beyond what a configuration may say.
    private static let endTimeMax = TimeSpan.seconds(1_000_000)
}

/// The text of a configuration that was in force, as a supervisor keeps it.
package final class KeptText: Sendable {
    package let descriptor: Descriptor

    package init(adopting raw: Int32) { descriptor = Descriptor(inherited: raw) }
}

/// The same as the next process finds it.
package struct KeptConfiguration: Sendable {
    package var text: String
    /// Whether the file was tried before, and the process did not come to serve.
    package var isOnly: Bool

    /// Larger than any configuration.
    private static let bytesMax = 16 << 20

    package init?(environment: [String: String]) {
        let parts = (environment[HandoverKeys.configuration] ?? "").split(separator: ":")
        guard let first = parts.first, let raw = Int32(first), raw > 2 else { return nil }
        guard let text = MemoryFile.read(Descriptor(adopting: raw), atMost: Self.bytesMax) else { return nil }
        self.text = text
        isOnly = parts.count > 1
    }

    static func variable(_ raw: Int32, isOnly: Bool) -> String { isOnly ? "\(raw):only" : "\(raw)" }
}
