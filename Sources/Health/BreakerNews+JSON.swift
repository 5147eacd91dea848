// A breaker's number as it is kept in a hash and told on a channel.

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
        WireJSON.text(
            Wire(
                service: backend.service, backend: backend.url, number: number,
                state: number % 2 == 1 ? "open" : "closed", evidence: HealthVerdict.bounded(evidence)))
    }

    package init(json bytes: [UInt8]) throws(HealthFormatError) {
        let wire: Wire = try WireJSON.read(bytes)
        guard wire.number <= BreakerNews.numberMax else { throw .malformed }
        self.init(
            backend: BackendKey(service: wire.service, url: wire.backend), number: wire.number,
            evidence: HealthVerdict.bounded(wire.evidence))
    }
}
