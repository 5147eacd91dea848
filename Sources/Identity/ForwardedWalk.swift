// Who the client is: the peer, or, behind proxies that we trust, whom the last of them saw.
//
// `X-Forwarded-For` grows on the right: each proxy appends the address that connected to it. What stands on the left
// was sent by the client and can be anything, so the list is walked from the right and only as far as each hop is one
// of ours. Rejected: the left-most entry, as many gateways take it; anybody can write that one.

package import Primitives

/// A walk through the `X-Forwarded-For` lines of one request, from the last to the first.
///
///     var walk = ForwardedWalk(peer: peer, trusted: proxies)
///     // the last field line first, until the walk is done
///     if walk.step == .more { walk.read(line, trusted: proxies) }
///     walk.client
package struct ForwardedWalk: Sendable {
    package enum Step: Hashable, Sendable {
        /// Everyone so far is trusted: the line before this one tells more, if there is one.
        case more
        /// `client` is final.
        case done
    }

    /// The client as far as the walk went, unmapped and without a port.
    package private(set) var client: IPAddress
    package private(set) var step: Step

    /// Done at once where the peer is not trusted: nothing it says about others is believed.
    package init(peer: IPAddress, trusted: TrustedProxies) {
        client = peer.unmapped
        step = trusted.contains(client) ? .more : .done
    }

    /// Reads one field value from its right end.
    ///
    /// The right-most address that is not trusted is the client. Where every address is trusted it is the left-most
    /// one. An entry that is no address (`unknown`, an obfuscated name, garbage) ends the walk, and the client is the
    /// hop that reported it.
    @discardableResult
    package mutating func read(_ line: Span<UInt8>, trusted: TrustedProxies) -> Step {
        var end = line.count
        while step == .more, end >= 0 {
            var start = end
            while start > 0, line[start - 1] != UInt8(ascii: ",") { start -= 1 }
            take(line.extracting(start..<end), trusted)
            end = start - 1
        }
        return step
    }

    private mutating func take(_ entry: Span<UInt8>, _ trusted: TrustedProxies) {
        let entry = trimmed(entry)
        // RFC 9110 §5.6.1.2: a list may have empty elements, which are nothing.
        if entry.isEmpty { return }
        guard let address = forwardedAddress(entry) else {
            step = .done
            return
        }
        client = address
        if !trusted.contains(address) { step = .done }
    }
}

/// Reads one entry: `192.0.2.1`, `192.0.2.1:4711`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:4711`, each of them
/// in quotes or not. `nil` for anything else.
func forwardedAddress(_ entry: Span<UInt8>) -> IPAddress? {
    let quote = UInt8(ascii: "\"")
    let count = entry.count
    if count >= 2, entry[0] == quote, entry[count - 1] == quote {
        return unquotedAddress(entry.extracting(1..<count - 1))
    }
    return unquotedAddress(entry)
}

private func unquotedAddress(_ entry: Span<UInt8>) -> IPAddress? {
    if entry.isEmpty { return nil }
    if entry[0] == UInt8(ascii: "[") {
        var close = 1
        while close < entry.count, entry[close] != UInt8(ascii: "]") { close += 1 }
        guard close < entry.count, hasPortOrNothing(entry, from: close + 1),
            let address = IPAddress(ascii: entry.extracting(1..<close)), address.family == .v6
        else { return nil }
        return address.unmapped
    }
    var colons = 0
    var colon = 0
    for i in entry.indices where entry[i] == UInt8(ascii: ":") {
        colons += 1
        colon = i
    }
    // One colon stands before a port; an IPv6 address has two at least.
    if colons == 1 {
        guard hasPortOrNothing(entry, from: colon) else { return nil }
        return IPAddress(ascii: entry.extracting(0..<colon))
    }
    return IPAddress(ascii: entry)?.unmapped
}

/// Whether nothing is left, or a colon and one to five digits.
private func hasPortOrNothing(_ entry: Span<UInt8>, from start: Int) -> Bool {
    let digits = entry.count - start - 1
    if digits < 0 { return true }
    guard entry[start] == UInt8(ascii: ":"), digits >= 1, digits <= 5 else { return false }
    for i in (start + 1)..<entry.count where entry[i] < 0x30 || entry[i] > 0x39 { return false }
    return true
}

/// Without optional white space around it (RFC 9110 §5.6.3).
@_lifetime(copy bytes)
private func trimmed(_ bytes: Span<UInt8>) -> Span<UInt8> {
    var start = 0
    var end = bytes.count
    while start < end, bytes[start] == 0x20 || bytes[start] == 0x09 { start += 1 }
    while end > start, bytes[end - 1] == 0x20 || bytes[end - 1] == 0x09 { end -= 1 }
    return bytes.extracting(start..<end)
}
