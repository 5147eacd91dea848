import Primitives

/// A URL with an authority, taken apart as RFC 3986 appendix B does. Errors never show the text: it may hold a
/// password.
struct URLParts {
    /// In lower case.
    let scheme: String
    let userinfo: Substring?
    /// Host and port as they stand.
    let authority: Substring
    /// With its brackets where it is an IPv6 address.
    let host: Substring
    let portText: Substring?
    let path: Substring
    let query: Substring?
    let fragment: Substring?

    init(_ text: String) throws(Invalid) {
        guard let separator = text.firstRange(of: "://"), separator.lowerBound > text.startIndex else {
            throw Invalid("not a URL: the scheme is missing; write one such as http://host:port")
        }
        guard text.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7f }) else {
            throw Invalid("a URL can not hold spaces or characters beyond ASCII; percent-encode them")
        }
        scheme = text[..<separator.lowerBound].lowercased()
        var rest = text[separator.upperBound...]
        func cut(at mark: Character) -> Substring? {
            guard let index = rest.firstIndex(of: mark) else { return nil }
            defer { rest = rest[..<index] }
            return rest[index...].dropFirst()
        }
        fragment = cut(at: "#")
        query = cut(at: "?")
        let pathStart = rest.firstIndex(of: "/") ?? rest.endIndex
        path = rest[pathStart...]
        var authority = rest[..<pathStart]
        // The last "@": an unencoded one inside a password would otherwise move the host.
        if let at = authority.lastIndex(of: "@") {
            userinfo = authority[..<at]
            authority = authority[at...].dropFirst()
        } else {
            userinfo = nil
        }
        self.authority = authority
        (host, portText) = Self.hostAndPort(authority)
    }

    /// Takes `host:port` apart.
    static func hostAndPort(_ authority: Substring) -> (host: Substring, portText: Substring?) {
        let bracket = authority.lastIndex(of: "]") ?? authority.startIndex
        guard let colon = authority[bracket...].lastIndex(of: ":") else { return (authority, nil) }
        return (authority[..<colon], authority[colon...].dropFirst())
    }

    /// - Throws: for anything but digits in 1...65535.
    func port(default standard: UInt16) throws(Invalid) -> UInt16 {
        try Self.port(portText, default: standard)
    }

    static func port(_ portText: Substring?, default standard: UInt16) throws(Invalid) -> UInt16 {
        guard let portText else { return standard }
        guard let port = decimalPort(portText), port > 0 else {
            throw Invalid("the port is not a number in 1...65535; write one such as :8081")
        }
        return port
    }
}

/// What a URL says of a server that is spoken to in plain HTTP: `http://host[:port][/path]`.
struct PlainHTTP {
    let host: Host
    let port: UInt16
    /// Empty, or starts with `/` and ends without one.
    let path: String

    /// - Parameters:
    ///   - what: an example of what can be written.
    ///   - noUser: what is said of a user or a password.
    ///   - noTLS: what is said of `https`.
    init(
        parsing url: String, port standard: UInt16, such what: String, noUser: String, noTLS: String
    ) throws(Invalid) {
        let parts = try URLParts(url)
        // First, so that no other error shows the password.
        if parts.userinfo != nil { throw Invalid(noUser) }
        if parts.scheme == "https" { throw Invalid("\(quoted(url)): \(noTLS)") }
        guard parts.scheme == "http" else {
            throw Invalid("\(quoted(url)) has a scheme other than http; write \(what)")
        }
        if parts.query != nil || parts.fragment != nil {
            throw Invalid("\(quoted(url)) has a query or a fragment; remove it")
        }
        do throws(Invalid) {
            host = try Host(parsing: parts.host)
        } catch {
            throw Invalid("\(quoted(url)): \(error.message)")
        }
        port = try parts.port(default: standard)
        path = parts.path.isEmpty || parts.path == "/" ? "" : try pathPrefix(String(parts.path))
    }
}

/// Decodes `%41`. `nil` where an encoding is cut short or the bytes are no UTF-8.
func percentDecoded(_ text: Substring) -> String? {
    var bytes: [UInt8] = []
    var rest = text.utf8
    while let byte = rest.popFirst() {
        if byte != UInt8(ascii: "%") {
            bytes.append(byte)
            continue
        }
        guard let high = rest.popFirst().flatMap(hexValue), let low = rest.popFirst().flatMap(hexValue) else {
            return nil
        }
        bytes.append(high << 4 | low)
    }
    return String(validating: bytes, as: UTF8.self)
}
