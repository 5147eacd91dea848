// Who the client is when it stands behind proxies.

package import Primitives

/// The proxies whose word on the client's address is believed.
package struct TrustedProxies: Sendable {
    private let blocks: [CIDR]

    package init(_ blocks: [CIDR]) { self.blocks = blocks }

    @inline(__always)
    package func contains(_ address: IPAddress) -> Bool {
        if blocks.isEmpty { return false }
        for block in blocks where block.contains(address) { return true }
        return false
    }
}

/// Walks `X-Forwarded-For` from the right: each trusted proxy wrote whom it saw, so the right-most address that is not
/// one of them is the client. What stands left of it anybody may have written.
///
/// Give it the field's lines from the last to the first; they count as one list (RFC 9110 §5.3).
package struct ForwardedWalk {
    package enum Progress: Sendable {
        /// All of this line was trusted: an earlier line may tell more.
        case goesOn
        case done
    }

    /// The client as far as it is known: at first the peer.
    package private(set) var client: IPAddress
    private let trusted: TrustedProxies

    package init(peer: IPAddress, trusted: TrustedProxies) {
        client = peer.unmapped
        self.trusted = trusted
    }

    /// Takes one line's value.
    package mutating func walk(line: Span<UInt8>) -> Progress {
        var end = line.count
        while end > 0 {
            var start = end
            while start > 0, line[start - 1] != UInt8(ascii: ",") { start -= 1 }
            let entry = Self.trimmed(line, start..<end)
            end = start - 1
            // Empty elements mean nothing (RFC 9110 §5.6.1).
            if entry.isEmpty { continue }
            // What is no address (`unknown`, an obfuscated name, nonsense) ends the walk: the last known hop counts.
            guard let address = Self.address(line, entry) else { return .done }
            client = address
            if !trusted.contains(address) { return .done }
        }
        return .goesOn
    }

    private static func trimmed(_ line: Span<UInt8>, _ range: Range<Int>) -> Range<Int> {
        func isFill(_ byte: UInt8) -> Bool { byte == 0x20 || byte == 0x09 || byte == UInt8(ascii: "\"") }
        var range = range
        while !range.isEmpty, isFill(line[range.lowerBound]) { range = (range.lowerBound + 1)..<range.upperBound }
        while !range.isEmpty, isFill(line[range.upperBound - 1]) { range = range.lowerBound..<(range.upperBound - 1) }
        return range
    }

    /// `1.2.3.4`, `1.2.3.4:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
    private static func address(_ line: Span<UInt8>, _ range: Range<Int>) -> IPAddress? {
        var range = range
        if line[range.lowerBound] == UInt8(ascii: "[") {
            var i = range.lowerBound + 1
            while i < range.upperBound, line[i] != UInt8(ascii: "]") { i += 1 }
            guard i < range.upperBound, isPort(line, (i + 1)..<range.upperBound) else { return nil }
            range = (range.lowerBound + 1)..<i
        } else {
            var colons = 0
            var colon = range.upperBound
            for i in range where line[i] == UInt8(ascii: ":") {
                colons += 1
                colon = i
            }
            if colons == 1 {
                guard isPort(line, colon..<range.upperBound) else { return nil }
                range = range.lowerBound..<colon
            }
        }
        return IPAddress(ascii: line.extracting(range))?.unmapped
    }

    private static func isPort(_ line: Span<UInt8>, _ range: Range<Int>) -> Bool {
        if range.isEmpty { return true }
        guard line[range.lowerBound] == UInt8(ascii: ":"), (2...6).contains(range.count) else { return false }
        for i in (range.lowerBound + 1)..<range.upperBound where line[i] < 0x30 || line[i] > 0x39 { return false }
        return true
    }
}

/// Whom a limit counts.
package struct SubjectKey: Hashable, Sendable {
    /// The client's address; for IPv6 its /64.
    package let address: IPAddress

    package init(_ client: IPAddress) { address = client.subscriber }

    /// Spreads subjects over tables. The seed keeps clients from aiming at one slot.
    @inline(__always)
    package func hash(seed: UInt64) -> UInt64 { mix64(mix64(address.high ^ seed) ^ address.low) }
}

extension SubjectKey: CustomStringConvertible {
    /// As it stands in Redis: `ip:203.0.113.7`, `ip:2001:db8:1:2::/64`.
    package var description: String { address.family == .v4 ? "ip:\(address)" : "ip:\(address)/64" }
}
