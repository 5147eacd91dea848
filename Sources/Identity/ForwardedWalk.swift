// Who the client is: the peer, or, behind proxies that we trust, whom the last of them saw.
//
// `X-Forwarded-For` grows on the right: each proxy appends the address that connected to it. What stands on the left
// was sent by the client and can be anything, so the list is walked from the right and only as far as each hop is one
// of ours. Rejected: the left-most entry, as many gateways take it; anybody can write that one. `Forwarded` (RFC 7239)
// grows the same way, and only one of the two is read: a proxy that continues the one lets the other pass as the client
// wrote it.

package import Primitives

/// A walk through the `X-Forwarded-For` lines of one request, or those of `Forwarded`, from the last to the first.
///
///     var walk = ForwardedWalk(peer: peer, trusted: proxies)
///     // the last field line first, until the walk is done
///     if walk.step == .more { walk.readForwardedFor(line, trusted: proxies) }
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
    /// How the client asked the outermost proxy that is believed; `Forwarded` alone says it.
    package private(set) var scheme: ForwardedScheme?

    /// Done at once where the peer is not trusted: nothing it says about others is believed.
    package init(peer: IPAddress, trusted: TrustedProxies) {
        client = peer.unmapped
        step = trusted.contains(client) ? .more : .done
    }

    /// Reads one value of `X-Forwarded-For` from its right end.
    ///
    /// The right-most address that is not trusted is the client. Where every address is trusted it is the left-most
    /// one. An entry that is no address (`unknown`, an obfuscated name, garbage) ends the walk, and the client is the
    /// hop that reported it.
    @discardableResult
    package mutating func readForwardedFor(_ line: Span<UInt8>, trusted: TrustedProxies) -> Step {
        var end = line.count
        while step == .more, end >= 0 {
            var start = end
            while start > 0, line[start - 1] != UInt8(ascii: ",") { start -= 1 }
            take(line.extracting(start..<end), trusted)
            end = start - 1
        }
        return step
    }

    /// Reads one value of `Forwarded` from its right end, by the same rules. An element that breaks the grammar ends the
    /// walk like one without an address.
    @discardableResult
    package mutating func readForwarded(_ line: Span<UInt8>, trusted: TrustedProxies) -> Step {
        var end = line.count
        while step == .more, end >= 0 {
            guard let start = elementStart(line, before: end) else {
                step = .done
                break
            }
            takeElement(line.extracting(start..<end), trusted)
            end = start - 1
        }
        return step
    }

    private mutating func takeElement(_ bytes: Span<UInt8>, _ trusted: TrustedProxies) {
        let bytes = trimmed(bytes)
        if bytes.isEmpty { return }
        guard let element = ForwardedElement(bytes) else {
            step = .done
            return
        }
        scheme = element.scheme ?? scheme
        guard let address = element.address else {
            step = .done
            return
        }
        client = address
        if !trusted.contains(address) { step = .done }
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

/// Reads the node of a `Forwarded` element: as above, and the port may be obfuscated (RFC 7239 §6.2, `:_x`).
func nodeAddress(_ node: Span<UInt8>) -> IPAddress? { unquotedAddress(node, obfuscatedPort: true) }

private func unquotedAddress(_ entry: Span<UInt8>, obfuscatedPort: Bool = false) -> IPAddress? {
    if entry.isEmpty { return nil }
    if entry[0] == UInt8(ascii: "[") {
        var close = 1
        while close < entry.count, entry[close] != UInt8(ascii: "]") { close += 1 }
        guard close < entry.count, hasPortOrNothing(entry, from: close + 1, obfuscatedPort),
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
        guard hasPortOrNothing(entry, from: colon, obfuscatedPort) else { return nil }
        return IPAddress(ascii: entry.extracting(0..<colon))
    }
    return IPAddress(ascii: entry)?.unmapped
}

/// Whether nothing is left, or a colon and one to five digits.
private func hasPortOrNothing(_ entry: Span<UInt8>, from start: Int, _ obfuscated: Bool) -> Bool {
    let digits = entry.count - start - 1
    if digits < 0 { return true }
    guard entry[start] == UInt8(ascii: ":"), digits >= 1 else { return false }
    if obfuscated, digits >= 2, entry[start + 1] == UInt8(ascii: "_") {
        for i in (start + 2)..<entry.count where !isObfuscatedByte(entry[i]) { return false }
        return true
    }
    guard digits <= 5 else { return false }
    for i in (start + 1)..<entry.count where entry[i] < 0x30 || entry[i] > 0x39 { return false }
    return true
}

/// RFC 7239 §6.3.
private func isObfuscatedByte(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
        UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "-"):
        true
    default: false
    }
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
