// All servers that hold keys: one, or the primaries of a cluster, each asked by a session of its own.

import Configuration
import Gateway
import RedisClient

final class RedisServers {
    let isCluster: Bool
    private let url: String
    private let topology: RedisTopology
    /// The one there is; on a cluster whom the map is asked of.
    private let first: RedisSession
    private var map = ClusterMap()
    private var sessions: [RedisEndpoint.Location: RedisSession] = [:]

    /// A slot may move while it is asked for, and once more.
    private static let redirectionsMax = 8

    init(_ url: RedisURL) throws {
        self.url = url.description
        topology = try Gateway.topology(of: url)
        isCluster = topology.isCluster
        first = try RedisSession(topology, name: url.description)
        if isCluster { map = try first.clusterMap() }
    }

    /// Each of them.
    func all() throws -> [RedisSession] { isCluster ? try map.primaries.map(session) : [first] }

    /// Asks whoever holds a key. All commands are about it, and each that is sent again changes nothing by that.
    func ask(_ key: String, _ commands: [[String]]) throws -> [RedisSession.Value] {
        guard isCluster else { return try first.pipeline(commands).map { try $0.get() } }
        let slot = KeySlot.of(key)
        guard var location = map.owner(of: slot) else {
            throw RedisSession.Failure(description: "\(url): no server holds the slot of \(key)")
        }
        var asking = false
        for _ in 0..<Self.redirectionsMax {
            let outcomes = try session(location).pipeline(commands, asking: asking)
            guard let refusal = outcomes.lazy.compactMap(Self.refusal).first,
                let redirection = Redirection(refusal, from: location)
            else { return try outcomes.map { try $0.get() } }
            switch redirection {
            case .moved(let slot, let to):
                map.moved(slot, to: to)
                (location, asking) = (to, false)
            case .ask(_, let at): (location, asking) = (at, true)
            case .tryAgain: break
            }
        }
        throw RedisSession.Failure(description: "\(url): the slot of \(key) is moving: try again")
    }

    private static func refusal(_ outcome: Result<RedisSession.Value, RedisSession.Failure>) -> String? {
        if case .failure(let failure) = outcome { failure.refusal } else { nil }
    }

    private func session(_ location: RedisEndpoint.Location) throws -> RedisSession {
        if let session = sessions[location] { return session }
        guard case .cluster(let seeds) = topology else { return first }
        var endpoint = seeds.server.at(location)
        endpoint.takesRedirections = true
        let session = try RedisSession(.single(endpoint), name: "\(location)")
        sessions[location] = session
        return session
    }
}
