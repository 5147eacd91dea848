// From the URL in the configuration to the servers that are asked.

package import Configuration
import Primitives
package import RedisClient
import TLS

/// - Throws: where files of certificates and keys cannot be used.
package func topology(of url: RedisURL) throws(NodeStartError) -> RedisTopology {
    var tls: TLSClient?
    if let settings = url.tls {
        do throws(TLSSetupError) {
            tls = try TLSClient(
                authorities: settings.authorities, certificate: settings.certificate, key: settings.key)
        } catch {
            throw NodeStartError(description: "rateLimit.redisURL: \(error)")
        }
    }
    let name = url.tls?.name
    func endpoint(_ location: RedisEndpoint.Location, _ login: RedisURL.Login?, database: Int) -> RedisEndpoint {
        RedisEndpoint(
            location, username: login?.username, password: login?.password, database: database, tls: tls,
            serverName: name)
    }
    switch url.kind {
    case .tcp(let host, let port):
        return .single(endpoint(location(host, port), url.login, database: url.database))
    case .unix(let path): return .single(endpoint(.unix(path: path), url.login, database: url.database))
    case .sentinel(let addresses, let service):
        let locations = addresses.map { location($0.host, $0.port) }
        return .sentinel(
            RedisSentinels(
                locations, service: service, sentinel: endpoint(locations[0], url.sentinelLogin, database: 0),
                server: endpoint(locations[0], url.login, database: url.database)))
    case .cluster(let addresses):
        let locations = addresses.map { location($0.host, $0.port) }
        return .cluster(RedisSeeds(locations, server: endpoint(locations[0], url.login, database: 0)))
    }
}

/// What the files of certificates and keys hold now; `nil` where that is what the connections to come go by anyway.
func tlsRenewal(of redis: RedisTopology?) throws(NodeStartError) -> TLSRenewal? {
    do throws(TLSSetupError) {
        return try redis?.tls?.renewal()
    } catch {
        throw NodeStartError(description: "rateLimit.redisURL: \(error)")
    }
}

private func location(_ host: Host, _ port: UInt16) -> RedisEndpoint.Location {
    .tcp(host: host.plain, port: port)
}
