// Which origins may read answers across origins (CORS, https://fetch.spec.whatwg.org/#http-cors-protocol).

package struct OriginPattern: Hashable, Sendable {
    private enum Kind: Hashable, Sendable {
        case any
        case exact([UInt8])
        /// Any name under a host: what stands before the `*`, and behind it.
        case subdomains(before: [UInt8], behind: [UInt8])
    }

    private let kind: Kind

    package var isAny: Bool { kind == .any }

    /// `*`, `null`, `https://app.example.com`, `http://localhost:3000`, `https://*.example.com`.
    package init(_ text: String) throws(TransformError) {
        if text == "*" {
            kind = .any
            return
        }
        if text == "null" {
            kind = .exact(Array("null".utf8))
            return
        }
        let scheme: String
        if text.hasPrefix("https://") {
            scheme = "https://"
        } else if text.hasPrefix("http://") {
            scheme = "http://"
        } else {
            throw TransformError(message: "is no origin; write a scheme and a host such as https://app.example.com")
        }
        var host = text.dropFirst(scheme.count)
        let isWild = host.hasPrefix("*.")
        if isWild { host = host.dropFirst() }
        let parts = host.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
        let name = parts[0].utf8
        // Browsers send names in lower case, and a trailing slash never.
        guard name.count > (isWild ? 1 : 0), name.allSatisfy({ Self.isHostByte($0) }) else {
            throw TransformError(
                message:
                    "is no origin: a host is lower-case letters, digits, `-` and `.`, without a path; `*.` may stand before it"
            )
        }
        if parts.count == 2 {
            guard let port = UInt16(parts[1]), "\(port)" == parts[1] else {
                throw TransformError(message: "has no port behind its colon")
            }
            if port == (scheme == "https://" ? 443 : 80) {
                throw TransformError(message: "names the port that browsers leave out; write it without")
            }
        }
        kind =
            isWild
            ? .subdomains(before: Array(scheme.utf8), behind: Array(host.utf8)) : .exact(Array(text.utf8))
    }

    private static func isHostByte(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x30...0x39, 0x61...0x7a, UInt8(ascii: "-"), UInt8(ascii: "."): true
        default: false
        }
    }

    package func matches(_ origin: Span<UInt8>) -> Bool {
        switch kind {
        case .any: return true
        case .exact(let text):
            guard text.count == origin.count else { return false }
            for i in text.indices where text[i] != origin[i] { return false }
            return true
        case .subdomains(let before, let behind):
            // One byte of a name at least; and nothing else than a name, or `https://evil.test/.example.com` would match.
            guard origin.count > before.count + behind.count else { return false }
            for i in before.indices where before[i] != origin[i] { return false }
            let end = origin.count - behind.count
            for i in behind.indices where behind[i] != origin[end + i] { return false }
            for i in before.count..<end where !Self.isHostByte(origin[i]) { return false }
            return true
        }
    }
}
