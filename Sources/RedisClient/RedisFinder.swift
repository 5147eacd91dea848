package import EventLoop
package import Primitives

/// Makes connections on one loop that lead to the right server, whatever the topology: to the one there is, to the
/// primary that sentinels name, or to the server of a cluster that holds a certain key.
package final class RedisFinder {
    private enum Means {
        case endpoint
        case sentinels(SentinelLocator)
        case cluster(ClusterWatch)
    }

    private let means: Means
    private let server: RedisEndpoint
    private let loop: Loop
    private let resolver: Resolver

    /// - Parameters:
    ///   - key: what is asked for is in its slot.
    ///   - name: shown by `CLIENT LIST` of sentinels and of a cluster's servers that are asked for the map.
    package init(
        _ topology: RedisTopology, key: String, name: String, loop: Loop, resolver: Resolver, seed: UInt64
    ) {
        self.loop = loop
        self.resolver = resolver
        switch topology {
        case .single(let endpoint):
            server = endpoint
            means = .endpoint
        case .sentinel(let sentinels):
            server = sentinels.server
            means = .sentinels(SentinelLocator(sentinels, name: name, loop: loop, resolver: resolver, seed: seed))
        case .cluster(let seeds):
            var endpoint = seeds.server
            endpoint.followsSlot = true
            server = endpoint
            means = .cluster(ClusterWatch(seeds, name: name, key: key, loop: loop, resolver: resolver, seed: seed))
        }
    }

    private var locator: (any RedisLocator)? {
        switch means {
        case .endpoint: nil
        case .sentinels(let locator): locator
        case .cluster(let watch): watch
        }
    }

    /// A connection that is not started yet. The finder must outlive it.
    ///
    /// - Parameter transactions: whether it is of no use where they are not allowed.
    package func connection(
        name: String, channels: [String] = [], silenceMax: TimeSpan = RedisConnection.silenceDefault,
        transactions: Bool = false, seed: UInt64, observer: any RedisObserver
    ) -> RedisConnection {
        var server = server
        server.takesTransactions = transactions
        return RedisConnection(
            server, name: name, channels: channels, silenceMax: silenceMax, locator: locator, loop: loop,
            resolver: resolver, seed: seed, observer: observer)
    }

    package func close() {
        switch means {
        case .endpoint: break
        case .sentinels(let locator): locator.close()
        case .cluster(let watch): watch.close()
        }
    }
}
