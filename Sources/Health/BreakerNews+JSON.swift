// A breaker's number as it is kept in a hash and told on a channel.

import FoundationEssentials

extension HealthKeys {
    /// A hash with one field for each backend whose breaker has ever opened, and the channel of its news.
    package static let breakersChannel = "sluice:breaker"
    package static func breakers(service: String) -> String { "sluice:breaker:\(service)" }
    /// Set by whoever has the trial of one opening.
    package static func trial(_ key: BackendKey, number: UInt64) -> String {
        "sluice:trial:\(key.service):\(number):\(key.url)"
    }
}

extension BreakerNews {
    private struct Wire: Codable {
        var service: String
        var backend: String
        var number: UInt64
        var state: String
        var evidence: String
    }

    package var json: String {
        let wire = Wire(
            service: backend.service, backend: backend.url, number: number,
            state: number % 2 == 1 ? "open" : "closed", evidence: HealthVerdict.bounded(evidence))
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        guard let data = try? encoder.encode(wire) else { return "{}" }
        return String(decoding: data, as: UTF8.self)
    }

    package init(json bytes: [UInt8]) throws(HealthFormatError) {
        if bytes.count > HealthVerdict.jsonBytesMax { throw .tooLong(bytes: bytes.count) }
        guard let wire = try? JSONDecoder().decode(Wire.self, from: Data(bytes)),
            wire.number <= BreakerNews.numberMax
        else { throw .malformed }
        self.init(
            backend: BackendKey(service: wire.service, url: wire.backend), number: wire.number,
            evidence: HealthVerdict.bounded(wire.evidence))
    }
}
