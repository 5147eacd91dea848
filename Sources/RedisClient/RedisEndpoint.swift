package import TLS

/// Where a Redis server is and how to log in.
package struct RedisEndpoint: Sendable {
    package enum Location: Hashable, Sendable, CustomStringConvertible {
        case tcp(host: String, port: UInt16)
        case unix(path: String)

        package var description: String {
            switch self {
            case .tcp(let host, let port): host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
            case .unix(let path): path
            }
        }
    }

    package var location: Location
    package var username: String?
    package var password: String?
    package var database: Int
    /// `nil`: in the clear.
    package var tls: TLSClient?
    /// The name that the server's certificate must be for; `nil`: the host that is connected to.
    package var serverName: String?
    /// Whether a replica is left at once, although it would log us in.
    package var mustBePrimary = false
    /// Whether who asks goes where a server of a cluster redirects, and the connection stays.
    package var takesRedirections = false
    /// Whether the connection itself goes where a server of a cluster redirects.
    package var followsSlot = false
    /// Whether it must be one that takes transactions from us.
    package var takesTransactions = false
    /// Sentinels know no `TIME`.
    package var tellsTime = true

    package init(
        _ location: Location, username: String? = nil, password: String? = nil, database: Int = 0,
        tls: TLSClient? = nil, serverName: String? = nil
    ) {
        self.location = location
        self.username = username
        self.password = password
        self.database = database
        self.tls = tls
        self.serverName = serverName
    }

    /// The same way to log in, elsewhere.
    package func at(_ location: Location) -> RedisEndpoint {
        var copy = self
        copy.location = location
        return copy
    }
}

/// Which servers there are, and how to find the one to ask.
package enum RedisTopology: Sendable {
    case single(RedisEndpoint)
    case sentinel(RedisSentinels)
    case cluster(RedisSeeds)

    package var isCluster: Bool {
        switch self {
        case .single, .sentinel: false
        case .cluster: true
        }
    }

    /// Whom we trust and who we are, to all servers alike; `nil`: in the clear.
    package var tls: TLSClient? {
        switch self {
        case .single(let endpoint): endpoint.tls
        case .sentinel(let sentinels): sentinels.server.tls
        case .cluster(let seeds): seeds.server.tls
        }
    }

    /// Who we are to a server that holds data.
    package var user: String {
        switch self {
        case .single(let endpoint): endpoint.username ?? "default"
        case .sentinel(let sentinels): sentinels.server.username ?? "default"
        case .cluster(let seeds): seeds.server.username ?? "default"
        }
    }
}

/// Sentinels, any of which knows the primary of a service.
package struct RedisSentinels: Sendable {
    package var locations: [RedisEndpoint.Location]
    package var service: String
    /// How to log in to a sentinel, wherever it is.
    package var sentinel: RedisEndpoint
    /// How to log in to the primary, wherever it is.
    package var server: RedisEndpoint

    package init(
        _ locations: [RedisEndpoint.Location], service: String, sentinel: RedisEndpoint, server: RedisEndpoint
    ) {
        self.locations = locations
        self.service = service
        self.sentinel = sentinel
        self.server = server
        self.server.mustBePrimary = true
        self.sentinel.tellsTime = false
    }
}

/// Some servers of a Redis Cluster, which know the others.
package struct RedisSeeds: Sendable {
    package var locations: [RedisEndpoint.Location]
    /// How to log in to any server.
    package var server: RedisEndpoint

    package init(_ locations: [RedisEndpoint.Location], server: RedisEndpoint) {
        self.locations = locations
        self.server = server
    }
}
