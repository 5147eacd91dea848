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
    /// Sentinels in a row that could not be asked, and after how many whoever waits is told.
    private var failures = 0
    private let failuresMax: Int
    /// Why no sentinel lets us listen, as last told.
    private var unheard: RedisFailure?

    private struct Follower {
        weak var connection: RedisConnection?
    }

    /// - Parameters:
    ///   - name: shown by `CLIENT LIST` of the sentinels; no spaces.
    ///   - seed: nodes with different ones begin with different sentinels.
    package init(_ sentinels: RedisSentinels, name: String, loop: Loop, resolver: Resolver, seed: UInt64) {
        view = SentinelView(service: sentinels.service)
        // That one of them is down is no news while another answers. A person does not wait for many that hang.
        failuresMax = min(sentinels.locations.count, 3)
        asker = RedisConnection(
            sentinels.sentinel, name: name, locator: TurnLocator(sentinels.locations, first: seed), loop: loop,
            resolver: resolver, seed: seed, observer: self)
        listener = RedisConnection(
            sentinels.sentinel, name: "\(name)-news", channels: [SentinelView.switched, SentinelView.promoted],
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
        if let failure, !failure.isOfSentinel, asker.isReady, !isAsking { turn() }
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
            failures = 0
            lead(to: location)
        case .unknown:
            failed(.lost("it knows no \(view.service)"))
            turn()
        case .malformed:
            failed(.malformed("it gave no address"))
            turn()
        }
    }

    package func redisFailed(_ failure: RedisFailure, token: UInt64) {
        isAsking = false
        // Where the connection was lost, it says so itself.
        guard case .refused = failure else { return }
        failed(failure)
        if asker.isReady { turn() }
    }

    /// Another sentinel may be able to say what this one could not. Whoever is told tries again by itself.
    private func failed(_ failure: RedisFailure) {
        guard !waiting.isEmpty else { return }
        failures += 1
        guard failures >= failuresMax else { return }
        let told = waiting
        waiting = []
        let failure = RedisFailure.sentinel(failure, at: asker.endpoint.location.description)
        for connection in told { connection.notLocated(failure) }
    }

    private func lead(to location: RedisEndpoint.Location) {
        let told = waiting
        waiting = []
        for connection in told {
            follow(connection)
            connection.located(location)
        }
    }

    // MARK: Following

    private func follow(_ connection: RedisConnection) {
        followers.removeAll { $0.connection == nil }
        if !followers.contains(where: { $0.connection === connection }) {
            followers.append(Follower(connection: connection))
            if let unheard { connection.observer?.redisMovesUnheard(connection, unheard) }
        }
    }

    package func redisMessage(_ connection: RedisConnection, channel: String, payload: String) {
        guard let location = view.heard(channel, payload) else { return }
        for follower in followers {
            guard let connection = follower.connection, connection.endpoint.location != location else { continue }
            connection.reconnect(because: "the primary is at \(location) now", at: location)
        }
        lead(to: location)
    }

    // MARK: Sentinels

    package func redisReady(_ connection: RedisConnection, sample: ServerTimeSample) {
        if connection === asker { ask() }
    }

    /// What was said while nobody listened is asked for: whoever has lost the primary does that by itself, and whoever
    /// is connected to a server that was demoted is told so by it (`READONLY`).
    package func redisSubscribed(_ connection: RedisConnection) {
        if unheard != nil { movesUnheard(because: nil) }
    }

    package func redisLost(_ connection: RedisConnection, _ failure: RedisFailure) {
        if connection === asker {
            if !isTurning { failed(failure) }
        } else if case .refused = failure, failure.cause == .permission, unheard == nil {
            movesUnheard(because: .sentinel(failure, at: listener.endpoint.location.description))
        }
    }

    private func movesUnheard(because failure: RedisFailure?) {
        unheard = failure
        for follower in followers {
            guard let connection = follower.connection else { continue }
            connection.observer?.redisMovesUnheard(connection, failure)
        }
    }
}
