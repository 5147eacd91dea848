// Where Redis is and how to log in, from one URL.

/// A checked Redis URL. However it is printed, the password is masked.
package struct RedisURL: Hashable, Sendable {
    package enum Kind: Hashable, Sendable {
        case tcp(host: Host, port: UInt16)
        case unix(path: String)
    }

    package let kind: Kind
    /// `nil`: Redis's user `default`.
    package let username: String?
    /// `nil`: no `AUTH`.
    package let password: String?
    package let database: Int

    /// Reads `redis://[[user]:password@]host[:port][/database]` or `unix:///path[?db=N]` (also `redis+unix://`).
    init(parsing text: String) throws(Invalid) {
        let parts = try Self.parts(of: text)
        if parts.fragment != nil { throw Invalid("a `#` in a password must be written %23; otherwise remove it") }
        (username, password) = try Self.login(parts.userinfo)
        switch parts.scheme {
        case "redis":
            if parts.host.contains(",") {
                throw Invalid("Redis Cluster and Sentinel are not supported yet; name one host")
            }
            let host = try Host(parsing: parts.host)
            kind = .tcp(host: host, port: try parts.port(default: Defaults.redisPort))
            if parts.query != nil {
                throw Invalid("a redis:// URL has no parameters here; write the database as redis://host:6379/N")
            }
            let number = parts.path.dropFirst()
            database = number.isEmpty ? 0 : try Self.database(String(number))
        case "unix", "redis+unix":
            guard parts.host.isEmpty, parts.portText == nil, parts.path.count > 1,
                let path = percentDecoded(parts.path),
                !path.utf8.contains(0)
            else { throw Invalid("no path to a socket; write one such as unix:///run/redis.sock") }
            // sun_path has 108 bytes with its final zero.
            guard path.utf8.count < 108 else { throw Invalid("the path of a socket has at most 107 bytes") }
            kind = .unix(path: path)
            database = try Self.database(inQuery: parts.query)
        case "rediss":
            throw Invalid("TLS to Redis is not supported yet; write redis://")
        case let scheme where scheme.contains("sentinel") || scheme.contains("cluster"):
            throw Invalid("Redis Cluster and Sentinel are not supported yet; write redis://host:port")
        default:
            throw Invalid("not a Redis URL; write redis://host:port or unix:///path")
        }
    }

    private static func parts(of text: String) throws(Invalid) -> URLParts {
        guard text.contains("://") else { throw Invalid("not a Redis URL; write redis://host:port or unix:///path") }
        return try URLParts(text)
    }

    private static func login(_ userinfo: Substring?) throws(Invalid) -> (String?, String?) {
        guard let userinfo else { return (nil, nil) }
        guard let colon = userinfo.firstIndex(of: ":") else {
            throw Invalid("a user without a password; write redis://user:password@host, or redis://:password@host")
        }
        guard let user = percentDecoded(userinfo[..<colon]),
            let password = percentDecoded(userinfo[colon...].dropFirst())
        else { throw Invalid("the user or the password is not percent-encoded UTF-8; write `%` itself as %25") }
        if password.isEmpty {
            if user.isEmpty { return (nil, nil) }
            throw Invalid("a user without a password; write redis://user:password@host, or redis://:password@host")
        }
        return (user.isEmpty ? nil : user, password)
    }

    private static func database(_ text: String) throws(Invalid) -> Int {
        guard let number = try? integer(text, in: 0...Int(Int32.max)) else {
            throw Invalid("the database is not a number; write redis://host:6379/0")
        }
        return number
    }

    private static func database(inQuery query: Substring?) throws(Invalid) -> Int {
        guard let query else { return 0 }
        guard query.hasPrefix("db="), let number = try? integer(String(query.dropFirst(3)), in: 0...Int(Int32.max))
        else {
            throw Invalid("the only parameter is the database; write unix:///path?db=0")
        }
        return number
    }
}

extension RedisURL: CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
    /// The URL in one form, without the password.
    package var description: String {
        let login = password == nil ? "" : "\(username ?? ""):***@"
        return switch kind {
        case .tcp(let host, let port): "redis://\(login)\(host):\(port)/\(database)"
        case .unix(let path): "unix://\(login)\(path)?db=\(database)"
        }
    }

    package var debugDescription: String { description }

    /// `dump` and the printing of a value that holds this one look here.
    package var customMirror: Mirror { Mirror(self, children: ["url": description]) }
}
