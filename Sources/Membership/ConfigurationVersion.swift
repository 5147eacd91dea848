// A configuration as it lies in Redis: the value of a field of `sluice:config:versions`, as JSON that redis-cli shows.

import FoundationEssentials

package struct ConfigurationVersion: Codable, Equatable, Sendable {
    package var version: Int
    /// Microseconds since 1970.
    package var at: Int64
    package var by: String
    package var note: String
    /// Of the text.
    package var hash: String
    package var text: String
    /// Why it never came into force, where it was refused.
    package var refusal: String?

    package init(version: Int, at: Int64, by: String, note: String, hash: String, text: String) {
        self.version = version
        self.at = at
        self.by = by
        self.note = note
        self.hash = hash
        self.text = text
    }

    /// `nil` for what no node has written.
    package init?(json: [UInt8]) {
        guard let read = try? JSONDecoder().decode(ConfigurationVersion.self, from: Data(json)) else { return nil }
        self = read
    }

    package var json: String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        guard let data = try? encoder.encode(self) else { return "{}" }
        return String(decoding: data, as: UTF8.self)
    }

    package var withoutText: ConfigurationVersion {
        var copy = self
        copy.text = ""
        return copy
    }
}
