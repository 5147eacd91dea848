// One element of the field `Forwarded` (RFC 7239 §4), which is what one proxy says of the request that it received:
// `for="[2001:db8::7]:4711";proto=https;by=_edge`.

import Primitives

/// The scheme by which a client asked a proxy in front.
package enum ForwardedScheme: Hashable, Sendable {
    case http, https

    private static let httpName = Array("http".utf8)
    private static let httpsName = Array("https".utf8)

    /// `nil` where it is neither.
    package init?(_ bytes: Span<UInt8>) {
        if equalsInLowerCase(bytes, Self.httpsName) {
            self = .https
        } else if equalsInLowerCase(bytes, Self.httpName) {
            self = .http
        } else {
            return nil
        }
    }
}

struct ForwardedElement: Equatable {
    /// From `for`; `nil` where that is absent, `unknown`, obfuscated (`_x`) or anything else than an address.
    private(set) var address: IPAddress?
    private(set) var scheme: ForwardedScheme?

    private static let parameterFor = Array("for".utf8)
    private static let parameterBy = Array("by".utf8)
    private static let parameterHost = Array("host".utf8)
    private static let parameterProto = Array("proto".utf8)

    /// Longer than any address in brackets with its port.
    private static let nodeBytesMax = 64

    /// `nil` where the element breaks the grammar. White space around semicolons is borne, and so are colons and
    /// brackets outside of quotes, because proxies write both.
    init?(_ bytes: Span<UInt8>) {
        var seen: (for: Bool, by: Bool, host: Bool, proto: Bool) = (false, false, false, false)
        var i = 0
        while true {
            i = afterWhiteSpace(bytes, i)
            if i < bytes.count, bytes[i] != UInt8(ascii: ";") {
                guard let pair = Pair(bytes, from: i) else { return nil }
                // §4: a parameter must not occur twice, or two readers believe two different ones.
                if pair.isNamed(Self.parameterFor, bytes) {
                    if seen.for { return nil }
                    seen.for = true
                    address = Self.address(pair, bytes)
                } else if pair.isNamed(Self.parameterProto, bytes) {
                    if seen.proto { return nil }
                    seen.proto = true
                    scheme = ForwardedScheme(bytes.extracting(pair.value))
                } else if pair.isNamed(Self.parameterBy, bytes) {
                    if seen.by { return nil }
                    seen.by = true
                } else if pair.isNamed(Self.parameterHost, bytes) {
                    if seen.host { return nil }
                    seen.host = true
                }
                i = afterWhiteSpace(bytes, pair.end)
            }
            if i == bytes.count { return }
            guard bytes[i] == UInt8(ascii: ";") else { return nil }
            i += 1
        }
    }

    private static func address(_ pair: Pair, _ bytes: Span<UInt8>) -> IPAddress? {
        let value = bytes.extracting(pair.value)
        guard pair.hasEscapes else { return nodeAddress(value) }
        guard value.count <= nodeBytesMax else { return nil }
        // RFC 9110 §5.6.4: a backslash stands before any character of a quoted string that its writer likes.
        var plain: [UInt8] = []
        var i = 0
        while i < value.count {
            if value[i] == UInt8(ascii: "\\"), i + 1 < value.count { i += 1 }
            plain.append(value[i])
            i += 1
        }
        return nodeAddress(plain.span)
    }

    /// A parameter: where its name and its value are, without quotes.
    private struct Pair {
        let name: Range<Int>
        let value: Range<Int>
        let end: Int
        let hasEscapes: Bool

        init?(_ bytes: Span<UInt8>, from start: Int) {
            var i = start
            while i < bytes.count, isTokenByte(bytes[i]) { i += 1 }
            guard i > start, i < bytes.count, bytes[i] == UInt8(ascii: "=") else { return nil }
            name = start..<i
            i += 1
            guard i < bytes.count, bytes[i] == UInt8(ascii: "\"") else {
                let valueStart = i
                while i < bytes.count, isTokenByte(bytes[i]) || isAddressDelimiter(bytes[i]) { i += 1 }
                guard i > valueStart else { return nil }
                value = valueStart..<i
                end = i
                hasEscapes = false
                return
            }
            i += 1
            let valueStart = i
            var escapes = false
            while i < bytes.count, bytes[i] != UInt8(ascii: "\"") {
                if bytes[i] == UInt8(ascii: "\\") {
                    escapes = true
                    i += 1
                }
                // RFC 9110 §5.6.4: no control characters, escaped or not.
                guard i < bytes.count, bytes[i] == 0x09 || bytes[i] >= 0x20 && bytes[i] != 0x7f else { return nil }
                i += 1
            }
            guard i < bytes.count else { return nil }
            value = valueStart..<i
            end = i + 1
            hasEscapes = escapes
        }

        func isNamed(_ word: [UInt8], _ bytes: Span<UInt8>) -> Bool { equalsInLowerCase(bytes.extracting(name), word) }
    }
}

/// Where the element of a field value that ends at `end` begins. A comma within quotes ends none. `nil` where a quoted
/// string that ends in it has no beginning.
///
/// Read from the right: a client's `for="` has no closing quote, and read from the left it would swallow what the
/// proxies behind it appended.
func elementStart(_ line: Span<UInt8>, before end: Int) -> Int? {
    var quoted = false
    var i = end
    while i > 0 {
        let byte = line[i - 1]
        if byte == UInt8(ascii: "\""), !isEscaped(line, i - 1) {
            quoted.toggle()
        } else if byte == UInt8(ascii: ","), !quoted {
            return i
        }
        i -= 1
    }
    return quoted ? nil : 0
}

/// Whether a value of `Forwarded` can stand before other elements: read from the left, as everybody else reads it, all of
/// its elements keep the grammar, and no quoted string is open at its end. One that is would swallow whatever is appended
/// to it, and the next reader would see an element of the client's instead.
package func isWellFormedForwarded(_ line: Span<UInt8>) -> Bool {
    var start = 0
    while start < line.count {
        var quoted = false
        var end = start
        while end < line.count, quoted || line[end] != UInt8(ascii: ",") {
            if line[end] == UInt8(ascii: "\"") {
                quoted.toggle()
            } else if quoted, line[end] == UInt8(ascii: "\\") {
                end += 1
            }
            end += 1
        }
        if quoted || end > line.count { return false }
        // RFC 9110 §5.6.1.2: empty elements are nothing; one without parameters is empty.
        if ForwardedElement(line.extracting(start..<end)) == nil { return false }
        start = end + 1
    }
    return true
}

/// Whether an odd number of backslashes stands before a byte.
private func isEscaped(_ line: Span<UInt8>, _ index: Int) -> Bool {
    var i = index
    while i > 0, line[i - 1] == UInt8(ascii: "\\") { i -= 1 }
    return (index - i) % 2 == 1
}

private func afterWhiteSpace(_ bytes: Span<UInt8>, _ start: Int) -> Int {
    var i = start
    while i < bytes.count, bytes[i] == 0x20 || bytes[i] == 0x09 { i += 1 }
    return i
}

/// RFC 9110 §5.6.2.
private func isTokenByte(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
        UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "!"), UInt8(ascii: "#"), UInt8(ascii: "$"),
        UInt8(ascii: "%"), UInt8(ascii: "&"), UInt8(ascii: "'"), UInt8(ascii: "*"), UInt8(ascii: "+"),
        UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "^"), UInt8(ascii: "_"), UInt8(ascii: "`"),
        UInt8(ascii: "|"), UInt8(ascii: "~"):
        true
    default: false
    }
}

/// What an address has and a token has not.
private func isAddressDelimiter(_ byte: UInt8) -> Bool {
    byte == UInt8(ascii: ":") || byte == UInt8(ascii: "[") || byte == UInt8(ascii: "]")
}

/// Names of parameters, and schemes, ignore case (RFC 7239 §4, RFC 3986 §3.1). `word` is in lower case.
private func equalsInLowerCase(_ bytes: Span<UInt8>, _ word: [UInt8]) -> Bool {
    guard bytes.count == word.count else { return false }
    for i in word.indices where bytes[i] | 0x20 != word[i] { return false }
    return true
}
