// Where Redis is and how to log in, from one URL.

/// A checked Redis URL. However it is printed, passwords are masked.
package struct RedisURL: Hashable, Sendable {
    package enum Kind: Hashable, Sendable {
        case tcp(host: Host, port: UInt16)
        case unix(path: String)
        /// Sentinels, any of which knows the primary of a service by its name.
        case sentinel([Address], service: String)
        /// Some servers of a Redis Cluster; they know the others.
        case cluster([Address])
    }

    package struct Address: Hashable, Sendable, CustomStringConvertible {
        package let host: Host
        package let port: UInt16
        package var description: String { "\(host):\(port)" }
    }

    /// How servers prove who they are, and how this node does. Paths of files in PEM.
    package struct TLS: Hashable, Sendable {
        /// Whose certificates are trusted; `nil`: those that the system trusts.
        package let authorities: String?
        package let certificate: String?
        package let key: String?
        /// The name that every certificate must be for; `nil`: the host that is connected to.
        package let name: String?
    }

    package struct Login: Hashable, Sendable {
        /// `nil`: Redis's user `default`.
        package let username: String?
        package let password: String
    }

    package let kind: Kind
    package let login: Login?
    /// Of the sentinels themselves.
    package let sentinelLogin: Login?
    package let database: Int
    package let tls: TLS?

    package var username: String? { login?.username }
    package var password: String? { login?.password }

    private enum Scheme: String {
        case redis, rediss, unix
        case redisUnix = "redis+unix"
        case sentinel = "redis+sentinel"
        case sentinelTLS = "rediss+sentinel"
        case cluster = "redis+cluster"
        case clusterTLS = "rediss+cluster"
    }

    private static let notRedis =
        "not a Redis URL; write redis://host:port, rediss://…, unix:///path, redis+sentinel://… or redis+cluster://…"

    /// Reads
    /// - `redis://[[user]:password@]host[:port][/database]`, or `rediss://…` for TLS,
    /// - `unix:///path[?db=N]` (also `redis+unix://`),
    /// - `redis+sentinel://[[user]:password@]host[:port],…/service[/database]` (also `rediss+sentinel://`),
    /// - `redis+cluster://[[user]:password@]host[:port],…[/]` (also `rediss+cluster://`),
    ///
    /// with the parameters `ca`, `cert`, `key` and `name` where there is TLS, and `sentinelUser` and `sentinelPassword`
    /// where there are sentinels.
    package init(parsing text: String) throws(Invalid) {
        guard text.contains("://") else { throw Invalid(Self.notRedis) }
        let parts = try URLParts(text)
        if parts.fragment != nil { throw Invalid("a `#` in a password must be written %23; otherwise remove it") }
        guard let scheme = Scheme(rawValue: parts.scheme) else { throw Invalid(Self.notRedis) }
        login = try Self.login(parts.userinfo)
        switch scheme {
        case .redis, .rediss:
            if parts.host.contains(",") {
                throw Invalid("several hosts are sentinels or a cluster; write redis+sentinel:// or redis+cluster://")
            }
            let host = try Host(parsing: parts.host)
            kind = .tcp(host: host, port: try parts.port(default: Defaults.redisPort))
            database = try Self.database(path: parts.path.dropFirst())
        case .unix, .redisUnix:
            guard parts.host.isEmpty, parts.portText == nil, parts.path.count > 1,
                let path = percentDecoded(parts.path),
                !path.utf8.contains(0)
            else { throw Invalid("no path to a socket; write one such as unix:///run/redis.sock") }
            // sun_path has 108 bytes with its final zero.
            guard path.utf8.count < 108 else { throw Invalid("the path of a socket has at most 107 bytes") }
            kind = .unix(path: path)
            database = try Self.database(inQuery: parts.query)
            (tls, sentinelLogin) = (nil, nil)
            return
        case .sentinel, .sentinelTLS:
            let addresses = try Self.addresses(parts.authority, port: Defaults.sentinelPort)
            let path = parts.path.dropFirst().split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
            guard let first = path.first, !first.isEmpty, let service = percentDecoded(first),
                service.utf8.allSatisfy({ $0 > 0x20 && $0 != 0x7f })
            else {
                throw Invalid("the name that the sentinels give the primary is missing; write …/mymaster")
            }
            kind = .sentinel(addresses, service: service)
            database = path.count > 1 ? try Self.database(path: path[1]) : 0
        case .cluster, .clusterTLS:
            kind = .cluster(try Self.addresses(parts.authority, port: Defaults.redisPort))
            guard parts.path.isEmpty || parts.path == "/" || parts.path == "/0" else {
                throw Invalid("a Redis Cluster has database 0 only; end the URL with the hosts")
            }
            database = 0
        }
        let usesTLS = [.rediss, .sentinelTLS, .clusterTLS].contains(scheme)
        let usesSentinels = [.sentinel, .sentinelTLS].contains(scheme)
        var allowed: [String] = []
        if usesTLS { allowed += ["ca", "cert", "key", "name"] }
        if usesSentinels { allowed += ["sentinelUser", "sentinelPassword"] }
        let parameters = try Self.parameters(parts.query, allowed: allowed)
        tls =
            usesTLS
            ? TLS(
                authorities: parameters["ca"], certificate: parameters["cert"], key: parameters["key"],
                name: parameters["name"]) : nil
        if parameters["key"] != nil, parameters["cert"] == nil {
            throw Invalid("a key without a certificate; write ?cert=/path&key=/path")
        }
        sentinelLogin = parameters["sentinelPassword"].map {
            Login(username: parameters["sentinelUser"], password: $0)
        }
        if sentinelLogin == nil, parameters["sentinelUser"] != nil {
            throw Invalid("sentinelUser without sentinelPassword; write both")
        }
    }

    private static func login(_ userinfo: Substring?) throws(Invalid) -> Login? {
        guard let userinfo else { return nil }
        guard let colon = userinfo.firstIndex(of: ":") else {
            throw Invalid("a user without a password; write redis://user:password@host, or redis://:password@host")
        }
        guard let user = percentDecoded(userinfo[..<colon]),
            let password = percentDecoded(userinfo[colon...].dropFirst())
        else { throw Invalid("the user or the password is not percent-encoded UTF-8; write `%` itself as %25") }
        if password.isEmpty {
            if user.isEmpty { return nil }
            throw Invalid("a user without a password; write redis://user:password@host, or redis://:password@host")
        }
        return Login(username: user.isEmpty ? nil : user, password: password)
    }

    /// `host[:port],host[:port]`.
    private static func addresses(_ authority: Substring, port standard: UInt16) throws(Invalid) -> [Address] {
        var addresses: [Address] = []
        for part in authority.split(separator: ",", omittingEmptySubsequences: false) {
            let (host, portText) = URLParts.hostAndPort(part)
            let port = try URLParts.port(portText, default: standard)
            let address = Address(host: try Host(parsing: host), port: port)
            if addresses.contains(address) { throw Invalid("\(address) is there twice") }
            addresses.append(address)
        }
        guard addresses.count <= Bounds.redisAddresses else {
            throw Invalid("more than \(Bounds.redisAddresses) hosts; a few are enough, they know the others")
        }
        return addresses
    }

    private static func parameters(_ query: Substring?, allowed: [String]) throws(Invalid) -> [String: String] {
        guard let query else { return [:] }
        if allowed.isEmpty {
            throw Invalid("this URL has no parameters; write the database as redis://host:6379/N")
        }
        var parameters: [String: String] = [:]
        for pair in query.split(separator: "&", omittingEmptySubsequences: false) {
            let halves = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard halves.count == 2, let name = halves.first.map(String.init), allowed.contains(name) else {
                throw Invalid("an unknown parameter; there are \(allowed.joined(separator: ", "))")
            }
            guard let value = percentDecoded(halves[1]), !value.isEmpty, !value.utf8.contains(0) else {
                throw Invalid("the parameter \(name) is empty or not percent-encoded UTF-8")
            }
            guard parameters.updateValue(value, forKey: name) == nil else {
                throw Invalid("the parameter \(name) is there twice")
            }
        }
        return parameters
    }

    private static func database(path: Substring) throws(Invalid) -> Int {
        if path.isEmpty { return 0 }
        guard let number = try? integer(String(path), in: 0...Int(Int32.max)) else {
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
    /// The URL in one form, without passwords and the names of files.
    package var description: String {
        let login = login.map { "\($0.username ?? ""):***@" } ?? ""
        let s = tls == nil ? "" : "s"
        return switch kind {
        case .tcp(let host, let port): "redis\(s)://\(login)\(host):\(port)/\(database)"
        case .unix(let path): "unix://\(login)\(path)?db=\(database)"
        case .sentinel(let addresses, let service):
            "redis\(s)+sentinel://\(login)\(Self.list(addresses))/\(service)/\(database)"
        case .cluster(let addresses): "redis\(s)+cluster://\(login)\(Self.list(addresses))/"
        }
    }

    private static func list(_ addresses: [Address]) -> String {
        addresses.map(\.description).joined(separator: ",")
    }

    package var debugDescription: String { description }

    /// `dump` and the printing of a value that holds this one look here.
    package var customMirror: Mirror { Mirror(self, children: ["url": description]) }
}
