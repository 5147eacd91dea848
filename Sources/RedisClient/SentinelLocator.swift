// Finds the primary through sentinels, and tells those who are connected when it is another. Sentinels are tried in
// turn: one that is gone, does not know the service, or led to a server that is of no use, is left for the next.

package import EventLoop
package import Hiredis
import Primitives

package final class SentinelLocator: RedisLocator, RedisRequester, RedisObserver {
    private var view: SentinelView
    private var asker: RedisConnection!
    private var listener: RedisConnection!
    /// Who asks where to go, and is not answered yet.
    private var waiting: [RedisConnection] = []
    /// Who has been told a place and may have to move.
    private var followers: [Follower] = []
    private var isAsking = false
    /// The connection to a sentinel is ended for another.
    private var isTurning = false

    private struct Follower {
        weak var connection: RedisConnection?
    }

    private static let channel = "+switch-master"

    /// - Parameters:
    ///   - name: shown by `CLIENT LIST` of the sentinels; no spaces.
    ///   - seed: nodes with different ones begin with different sentinels.
    package init(_ sentinels: RedisSentinels, name: String, loop: Loop, resolver: Resolver, seed: UInt64) {
        view = SentinelView(service: sentinels.service)
        asker = RedisConnection(
            sentinels.sentinel, name: name, locator: TurnLocator(sentinels.locations, first: seed), loop: loop,
            resolver: resolver, seed: seed, observer: self)
        listener = RedisConnection(
            sentinels.sentinel, name: "\(name)-news", channels: [Self.channel],
            locator: TurnLocator(sentinels.locations, first: seed), loop: loop, resolver: resolver, seed: seed &+ 1,
            observer: self)
        asker.start()
        listener.start()
    }

    package func close() {
        asker.close()
        listener.close()
    }

    /// Where the primary is, as last told.
    package var primary: RedisEndpoint.Location? { view.primary }

    // MARK: Finding

    package func locate(_ connection: RedisConnection, after failure: RedisFailure?) {
        if !waiting.contains(where: { $0 === connection }) { waiting.append(connection) }
        // Another sentinel may know better than the one that led to nowhere.
        if failure != nil, asker.isReady, !isAsking { turn() }
        ask()
    }

    /// Goes to the next sentinel. Whoever waits, waits for what that says.
    private func turn() {
        isTurning = true
        asker.reconnect(because: "another sentinel is asked")
        isTurning = false
    }

    private func ask() {
        guard asker.isReady, !isAsking, !waiting.isEmpty else { return }
        isAsking = true
        asker.write { writer in
            writer.add("SENTINEL")
            writer.add("GET-MASTER-ADDR-BY-NAME")
            writer.add(view.service)
        }
        asker.sendCommand(self, token: 0)
    }

    package func redisReplied(_ reply: Reply, token: UInt64) {
        isAsking = false
        switch view.answered(reply) {
        case .primary(let location):
            let told = waiting
            waiting = []
            for connection in told {
                follow(connection)
                connection.located(location)
            }
        case .unknown:
            refuse(.lost("the sentinel at \(asker.endpoint.location) knows no \(view.service)"))
            turn()
        case .malformed:
            refuse(.malformed("the sentinel at \(asker.endpoint.location) gave no address"))
            turn()
        }
    }

    package func redisFailed(_ failure: RedisFailure, token: UInt64) {
        isAsking = false
        refuse(failure)
    }

    /// Whoever waits tries again by itself.
    private func refuse(_ failure: RedisFailure) {
        let told = waiting
        waiting = []
        for connection in told { connection.notLocated(failure) }
    }

    // MARK: Following

    private func follow(_ connection: RedisConnection) {
        followers.removeAll { $0.connection == nil }
        if !followers.contains(where: { $0.connection === connection }) {
            followers.append(Follower(connection: connection))
        }
    }

    package func redisMessage(_ connection: RedisConnection, channel: String, payload: String) {
        guard let location = view.heard(payload) else { return }
        for follower in followers {
            guard let connection = follower.connection, connection.endpoint.location != location else { continue }
            connection.reconnect(because: "the primary is at \(location) now", at: location)
        }
    }

    // MARK: Sentinels

    package func redisReady(_ connection: RedisConnection, sample: ServerTimeSample) {
        if connection === asker { ask() }
    }

    /// What was said while nobody listened is asked for: whoever has lost the primary does that by itself, and whoever
    /// is connected to a server that was demoted is told so by it (`READONLY`).
    package func redisSubscribed(_ connection: RedisConnection) {}

    package func redisLost(_ connection: RedisConnection, _ failure: RedisFailure) {
        if connection === asker, !isTurning, !waiting.isEmpty {
            refuse(.lost("no sentinel: \(asker.endpoint.location): \(failure)"))
        }
    }
}
