/// Where Redis is and how to log in: `redis://[user[:password]@]host[:port][/database]` or
/// `unix:///path[?db=N]`.
package struct RedisURL: Equatable, Sendable, CustomStringConvertible {
    package enum Location: Equatable, Sendable {
        case tcp(host: String, port: UInt16)
        case unix(path: String)
    }

    package var location: Location
    package var username: String?
    package var password: String?
    package var database = 0

    /// With the password masked.
    package var description: String {
        let login = username == nil && password == nil ? "" : "\(username ?? "")\(password == nil ? "" : ":***")@"
        switch location {
        case .tcp(let host, let port):
            let name = host.contains(":") ? "[\(host)]" : host
            return "redis://\(login)\(name):\(port)\(database == 0 ? "" : "/\(database)")"
        case .unix(let path): return "unix://\(login)\(path)\(database == 0 ? "" : "?db=\(database)")"
        }
    }

    package struct Malformed: Error, Equatable {
        package var message: String
    }

    package init(_ text: String) throws(Malformed) {
        guard let separator = text.utf8.firstIndex(of: UInt8(ascii: ":")), text[separator...].hasPrefix("://") else {
            throw Malformed(message: "is no Redis URL: write redis://host:port")
        }
        let scheme = text[..<separator]
        let rest = text[separator...].dropFirst(3)
        switch scheme {
        case "redis": try self.init(tcp: rest)
        case "unix", "redis+unix": try self.init(unix: rest)
        case "rediss", "redis+sentinel", "redis+cluster":
            throw Malformed(message: "\(scheme):// is not supported yet: write redis://host:port")
        default: throw Malformed(message: "the scheme \(scheme):// is none of Redis: write redis://host:port")
        }
    }

    private init(tcp text: Substring) throws(Malformed) {
        var rest = text
        if let at = rest.lastIndex(of: "@") {
            (username, password) = try Self.login(rest[..<at])
            rest = rest[rest.index(after: at)...]
        }
        if let slash = rest.firstIndex(of: "/") {
            let digits = rest[rest.index(after: slash)...]
            if !digits.isEmpty { database = try Self.databaseNumber(digits) }
            rest = rest[..<slash]
        }
        var port: UInt16 = 6379
        var host = rest
        if rest.hasPrefix("[") {
            guard let end = rest.firstIndex(of: "]") else { throw Malformed(message: "the address lacks its \"]\"") }
            host = rest[rest.index(after: rest.startIndex)..<end]
            rest = rest[rest.index(after: end)...]
            if rest.hasPrefix(":") { port = try Self.portNumber(rest.dropFirst()) }
        } else if let colon = rest.lastIndex(of: ":") {
            host = rest[..<colon]
            port = try Self.portNumber(rest[rest.index(after: colon)...])
        }
        if host.isEmpty { host = "localhost" }
        location = .tcp(host: String(host), port: port)
    }

    private init(unix text: Substring) throws(Malformed) {
        var rest = text
        if let slash = rest.firstIndex(of: "/"), let at = rest[..<slash].lastIndex(of: "@") {
            (username, password) = try Self.login(rest[..<at])
            rest = rest[rest.index(after: at)...]
        }
        if let question = rest.firstIndex(of: "?") {
            let query = rest[rest.index(after: question)...]
            guard query.hasPrefix("db=") else { throw Malformed(message: "after the path only ?db=N may follow") }
            database = try Self.databaseNumber(query.dropFirst(3))
            rest = rest[..<question]
        }
        guard rest.hasPrefix("/"), rest.utf8.count <= 107 else {
            throw Malformed(message: "the path of a Unix socket begins with / and has at most 107 bytes")
        }
        location = .unix(path: String(rest))
    }

    private static func login(_ text: Substring) throws(Malformed) -> (String?, String?) {
        let parts = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
        let user = try decoded(parts[0])
        let password = parts.count == 2 ? try decoded(parts[1]) : nil
        return (user.isEmpty ? nil : user, password)
    }

    private static func databaseNumber(_ digits: Substring) throws(Malformed) -> Int {
        guard digits.count <= 5, digits.utf8.allSatisfy({ $0 >= 0x30 && $0 <= 0x39 }), let number = Int(digits) else {
            throw Malformed(message: "the database \"\(digits)\" is no number")
        }
        return number
    }

    private static func portNumber(_ digits: Substring) throws(Malformed) -> UInt16 {
        guard digits.utf8.allSatisfy({ $0 >= 0x30 && $0 <= 0x39 }), let port = UInt16(digits), port > 0 else {
            throw Malformed(message: "the port \"\(digits)\" is not between 1 and 65535")
        }
        return port
    }

    /// RFC 3986 §2.1.
    private static func decoded(_ text: Substring) throws(Malformed) -> String {
        var bytes: [UInt8] = []
        var rest = Array(text.utf8)[...]
        while let byte = rest.popFirst() {
            if byte == UInt8(ascii: "%") {
                guard let high = rest.popFirst(), let low = rest.popFirst(),
                    let value = UInt8(String(decoding: [high, low], as: UTF8.self), radix: 16)
                else { throw Malformed(message: "a % is not followed by two hexadecimal digits") }
                bytes.append(value)
            } else {
                bytes.append(byte)
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}
