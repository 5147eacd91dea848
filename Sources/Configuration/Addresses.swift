// Where to listen and where to connect.

package import Primitives

/// An address to listen on.
package struct ListenAddress: Hashable, Sendable, CustomStringConvertible {
    /// `nil`: every interface.
    package let host: IPAddress?
    /// 0: any free port.
    package let port: UInt16

    package init(host: IPAddress?, port: UInt16) {
        self.host = host
        self.port = port
    }

    /// `:8080` is every interface; `127.0.0.1:8080`; `[::1]:8080`; a bare `8080` is `:8080`.
    init(parsing text: String) throws(Invalid) {
        let colon = text.lastIndex(of: ":")
        let host = colon.map { text[..<$0] } ?? ""
        let port = colon.map { text[text.index(after: $0)...] } ?? text[...]
        guard let number = decimalPort(port) else {
            throw Invalid("\(quoted(text)) has no port in 0...65535; write :8080, 127.0.0.1:8080 or [::1]:8080")
        }
        self.port = number
        if host.isEmpty {
            self.host = nil
        } else if host.first == "[", host.last == "]" {
            guard let address = IPAddress(host.dropFirst().dropLast()), address.family == .v6 else {
                throw Invalid("\(quoted(host)) is not an IPv6 address in brackets; write one such as [::1]:\(number)")
            }
            self.host = address.unmapped
        } else if let address = IPAddress(host) {
            guard address.family == .v4 else {
                throw Invalid("\(quoted(text)) needs brackets around the address: write [\(host)]:\(number)")
            }
            self.host = address
        } else {
            throw Invalid("\(quoted(host)) is not an IP address; write one such as 127.0.0.1:\(number), or :\(number)")
        }
    }

    /// Whether both can not be listened on at once, or one would take what was meant for the other.
    package func overlaps(_ other: ListenAddress) -> Bool {
        if port == 0 || port != other.port { return false }
        guard let host, let second = other.host else { return true }
        return host == second || host.isUnspecified || second.isUnspecified
    }

    package var description: String {
        guard let host else { return ":\(port)" }
        return SocketAddress(ip: host, port: port).description
    }
}

/// Digits only, 0...65535.
func decimalPort(_ text: some StringProtocol) -> UInt16? {
    guard !text.isEmpty, text.utf8.count <= 5, text.utf8.allSatisfy({ $0 >= 0x30 && $0 <= 0x39 }) else { return nil }
    return UInt16(text)
}

/// A machine: by address, or by a name that somebody resolves later.
package enum Host: Hashable, Sendable, CustomStringConvertible {
    case address(IPAddress)
    /// In lower case.
    case name(String)

    /// Reads the host of a URL; an IPv6 address stands in brackets (RFC 3986 §3.2.2).
    init(parsing text: Substring) throws(Invalid) {
        if text.first == "[" {
            guard text.last == "]", let address = IPAddress(text.dropFirst().dropLast()), address.family == .v6 else {
                throw Invalid("the host is not an IPv6 address in brackets; write one such as [::1]")
            }
            self = .address(address.unmapped)
            return
        }
        if text.contains(":") { throw Invalid("an IPv6 address stands in brackets, as in [::1]") }
        if let address = IPAddress(text) {
            self = .address(address)
            return
        }
        let isName = text.utf8.allSatisfy(isNameByte)
        guard !text.isEmpty, text.utf8.count <= 253, isName, !text.hasPrefix("."), !text.contains("..") else {
            throw Invalid("the host is neither a name nor an address; write one such as localhost or 10.0.0.7")
        }
        // A last label of digits is an address to every resolver (WHATWG URL §3.5), and this one is malformed.
        let last = text.split(separator: ".").last ?? ""
        if last.utf8.allSatisfy({ $0 >= 0x30 && $0 <= 0x39 }) {
            throw Invalid("the host is not an IPv4 address; write four numbers in 0...255 without leading zeros")
        }
        self = .name(text.lowercased())
    }

    /// As in a URL: IPv6 in brackets.
    package var description: String {
        switch self {
        case .address(let address): address.family == .v4 ? "\(address)" : "[\(address)]"
        case .name(let name): name
        }
    }

    /// As a resolver takes it: without the brackets.
    package var plain: String {
        switch self {
        case .address(let address): address.description
        case .name(let name): name
        }
    }
}

extension Configuration {
    /// One instance of a service.
    package struct Backend: Hashable, Sendable, CustomStringConvertible {
        package enum Scheme: String, Hashable, Sendable { case http }

        /// As the file has it: the backend's identity for every node.
        package let url: String
        package let scheme = Scheme.http
        package let host: Host
        package let port: UInt16
        /// Joined before the forwarded path: empty, or starts with `/` and ends without one.
        package let basePath: String
        /// 1...65,535.
        package let weight: Int

        /// Reads `http://host[:port][/base]`.
        init(parsing url: String, weight: Int) throws(Invalid) {
            let server = try PlainHTTP(
                parsing: url, port: 80, such: "http://host:port",
                noUser: "a backend's URL can not hold a user or a password; remove them",
                noTLS: "TLS to backends does not exist yet; write http://")
            (host, port, basePath) = (server.host, server.port, server.path)
            self.url = url
            self.weight = weight
        }

        /// What makes two URLs one backend, however they are spelt.
        struct Place: Hashable {
            let host: Host
            let port: UInt16
            let basePath: String
        }

        var place: Place { Place(host: host, port: port, basePath: basePath) }

        /// Whether a URL that somebody has written means it.
        package func isMeant(by url: String) -> Bool { url == self.url || Self.place(of: url) == place }

        /// Whether two URLs mean one backend.
        package static func areSame(_ left: String, _ right: String) -> Bool {
            left == right || place(of: left) != nil && place(of: left) == place(of: right)
        }

        private static func place(of url: String) -> Place? { (try? Backend(parsing: url, weight: 1))?.place }

        /// The value of `Host` for this backend (RFC 9110 §7.2): the port only where it is not the scheme's own.
        package var authority: String { port == 80 ? "\(host)" : "\(host):\(port)" }

        package var description: String { url }
    }
}

/// A path to match the start of request paths with, without its trailing slash.
///
/// Request paths are compared as bytes, so everything that has a second spelling is refused here.
func pathPrefix(_ text: String) throws(Invalid) -> String {
    guard text.hasPrefix("/") else {
        throw Invalid("\(quoted(text)) does not start with a slash; write one such as /api")
    }
    guard text.utf8.count <= Bounds.pathBytesMax else {
        throw Invalid("\(quoted(text)) is longer than \(Bounds.pathBytesMax) bytes")
    }
    if text.contains("?") || text.contains("#") {
        throw Invalid("\(quoted(text)) has a query or a fragment; a path is what stands before `?` and `#`")
    }
    // RFC 3986 §3.3: pchar, without percent-encodings, and without the parameters that routes do not see.
    let extra = Array("/-._~!$&'()*+,=:@".utf8)
    guard text.utf8.allSatisfy({ isAlphanumeric($0) || extra.contains($0) }) else {
        throw Invalid("\(quoted(text)) has a character other than letters, digits and -._~!$&'()*+,=:@")
    }
    let segments = text.dropFirst().split(separator: "/", omittingEmptySubsequences: false)
    // The last one is empty behind a trailing slash.
    if segments.dropLast().contains("") {
        throw Invalid("\(quoted(text)) has an empty segment; write single slashes")
    }
    if segments.contains(".") || segments.contains("..") {
        throw Invalid("\(quoted(text)) has a dot segment; write the path that it means")
    }
    return text.count > 1 && text.hasSuffix("/") ? String(text.dropLast()) : text
}
