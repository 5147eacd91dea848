// Who the client is, by what proxies say.

import Identity
import Primitives
import ProxyProtocol

/// The first byte chooses the peer; each line of the rest is a field value.
func checkForwarded(_ input: [UInt8]) throws {
    guard let first = input.first else { return }
    let trusted = TrustedProxies([
        try block("10.0.0.0/8"), try block("192.0.2.1/32"), try block("2001:db8::/32"),
    ])
    let peers = [try address("10.0.0.1"), try address("203.0.113.9"), try address("2001:db8::1")]
    let peer = peers[Int(first) % peers.count]
    let lines = input.dropFirst().split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false).map(Array.init)

    let walk = walked(lines, peer, trusted)
    var other = ForwardedWalk(peer: peer, trusted: trusted)
    for line in lines.reversed() where other.step == .more { other.readForwarded(line.span, trusted: trusted) }
    for walk in [walk, other] {
        if !trusted.contains(peer) { try require(walk.client == peer, "a stranger is believed: \(shown(input))") }
        try require(walk.client == walk.client.unmapped, "an address in another family's clothes: \(shown(input))")
    }
    // Behind lines that are continued, our own element is what the next reader finds at the right.
    if lines.allSatisfy({ isWellFormedForwarded($0.span) }) {
        let continued = Array(lines.joined(separator: [UInt8(ascii: ",")])) + Array(", for=198.51.100.1".utf8)
        try require(isWellFormedForwarded(continued.span), "no longer well formed: \(shown(input))")
        var next = ForwardedWalk(peer: try address("10.0.0.1"), trusted: trusted)
        next.readForwarded(continued.span, trusted: trusted)
        try require(next.client == (try address("198.51.100.1")), "our element is lost: \(shown(input))")
    }
    // RFC 9110 §5.3: a list in one line is the same list in several.
    let entries = lines.flatMap {
        $0.split(separator: UInt8(ascii: ","), omittingEmptySubsequences: false).map(Array.init)
    }
    try require(walked(entries, peer, trusted).client == walk.client, "split otherwise: \(shown(input))")
    let joined = Array(lines.joined(separator: [UInt8(ascii: ",")]))
    try require(walked([joined], peer, trusted).client == walk.client, "joined otherwise: \(shown(input))")
}

private func walked(_ lines: [[UInt8]], _ peer: IPAddress, _ trusted: TrustedProxies) -> ForwardedWalk {
    var walk = ForwardedWalk(peer: peer, trusted: trusted)
    for line in lines.reversed() where walk.step == .more { walk.readForwardedFor(line.span, trusted: trusted) }
    return walk
}

/// The header of the PROXY protocol: a verdict may come later, and may not differ, and what follows changes nothing.
func checkProxyHeader(_ input: [UInt8]) throws {
    let whole = ProxyHeader.parse(input.span)
    for length in cuts(of: input.count, seed: stableHash(input.span), everywhereUpTo: 256) {
        let progress = ProxyHeader.parse(input.span.extracting(first: length))
        guard progress != .needMore else { continue }
        try require(progress == whole, "\(length) bytes of \(shown(input)): \(progress), the whole: \(whole)")
    }
    guard case .complete(let source, let length) = whole else { return }
    try require(length > 0 && length <= input.count, "a length outside: \(shown(input))")
    try require(ProxyHeader.parse(input.span.extracting(first: length)) == whole, "not enough: \(shown(input))")
    if length > 1 {
        try require(
            ProxyHeader.parse(input.span.extracting(first: length - 1)) == .needMore, "too much: \(shown(input))")
    }
    if case .client(let address) = source {
        try require(address.ip == address.ip.unmapped, "an address in another family's clothes: \(shown(input))")
    }
}

private func address(_ text: String) throws -> IPAddress {
    guard let address = IPAddress(text) else { throw Finding(text) }
    return address
}

private func block(_ text: String) throws -> CIDR {
    guard let block = CIDR(text) else { throw Finding(text) }
    return block
}
