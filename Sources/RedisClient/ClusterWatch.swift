// Keeps the map of a Redis Cluster: one connection to any of its servers, which is asked for the slots when something
// seems to have changed, and now and then. Servers are tried in turn.

package import EventLoop
package import Hiredis
import Primitives

/// Who wants to know where the slots are. Called on the loop.
package protocol ClusterFollower: AnyObject {
    func clusterMapChanged(_ map: ClusterMap)
    /// No server can be asked; it is tried again.
    func clusterMapLost(_ failure: RedisFailure)
}

package final class ClusterWatch: RedisLocator, RedisRequester, RedisObserver {
    package private(set) var map = ClusterMap()
    private let seeds: [RedisEndpoint.Location]
    private let turns: TurnLocator
    private let loop: Loop
    private weak var follower: (any ClusterFollower)?
    private var asker: RedisConnection!
    private var timer: LoopTimer!
    private var isAsking = false
    /// The connection to a server is ended for another.
    private var isTurning = false
    private var isUrgent = false
    private var lastAskedAt = MonotonicTime(nanoseconds: 0)
    /// Who asks where the slot of a key is, and has not been told.
    private var waiting: [RedisConnection] = []
    private let locatedSlot: Int

    /// The map is looked at anew: when nothing is known to have changed, and when something has.
    private static let calmPause = TimeSpan.seconds(5)
    private static let urgentPause = TimeSpan.milliseconds(100)
    /// Redirections come in thousands; one look answers them all.
    private static let askPauseMin = TimeSpan.milliseconds(20)

    /// - Parameters:
    ///   - name: shown by `CLIENT LIST`; no spaces.
    ///   - key: connections that ask by `locate` are led to the server that holds it.
    package init(
        _ seeds: RedisSeeds, name: String, key: String = "", loop: Loop, resolver: Resolver, seed: UInt64,
        follower: (any ClusterFollower)? = nil
    ) {
        self.seeds = seeds.locations
        self.loop = loop
        self.follower = follower
        locatedSlot = KeySlot.of(key)
        turns = TurnLocator(seeds.locations, first: seed)
        asker = RedisConnection(
            seeds.server, name: name, locator: turns, loop: loop, resolver: resolver, seed: seed, observer: self)
        timer = LoopTimer(loop) { [weak self] in self?.tick() }
        asker.start()
    }

    package func close() {
        timer.cancel()
        asker.close()
    }

    /// Something has changed, or is about to: the map is asked for soon, and often until it is known.
    package func refresh(urgent: Bool = false) {
        if urgent { isUrgent = true }
        guard !isAsking else { return }
        if loop.now - lastAskedAt >= Self.askPauseMin { ask() } else { schedule(Self.askPauseMin) }
    }

    /// All servers serve again.
    package func calm() { isUrgent = false }

    /// A server does not answer; if it is the one that is asked for the map, another one is.
    package func suspect(_ location: RedisEndpoint.Location) {
        if asker.endpoint.location == location, asker.isReady || isAsking { turn() }
        refresh(urgent: true)
    }

    /// Goes to the next server. Whoever waits, waits for what that says.
    private func turn() {
        isTurning = true
        asker.reconnect(because: "another server of the cluster is asked")
        isTurning = false
    }

    /// A redirection is as good as a look at the map, for one slot.
    package func moved(_ slot: Int, to location: RedisEndpoint.Location) {
        if map.owner(of: slot) != location {
            map.moved(slot, to: location)
            follower?.clusterMapChanged(map)
        }
        refresh()
    }

    private func schedule(_ pause: TimeSpan) { timer.schedule(after: pause) }

    private func tick() {
        ask()
        schedule(isUrgent ? Self.urgentPause : Self.calmPause)
    }

    private func ask() {
        guard asker.isReady, !isAsking else { return }
        isAsking = true
        lastAskedAt = loop.now
        asker.write { writer in
            writer.add("CLUSTER")
            writer.add("SLOTS")
        }
        asker.sendCommand(self, token: 0)
    }

    // MARK: Answers

    package func redisReplied(_ reply: Reply, token: UInt64) {
        isAsking = false
        guard let found = ClusterMap(reply, askedAt: asker.endpoint.location) else {
            asker.distrust("CLUSTER SLOTS was answered by something else")
            return
        }
        if found != map {
            map = found
            turns.replace(seeds + found.primaries.filter { !seeds.contains($0) })
            follower?.clusterMapChanged(map)
        }
        schedule(isUrgent ? Self.urgentPause : Self.calmPause)
        answerWaiting()
    }

    package func redisFailed(_ failure: RedisFailure, token: UInt64) {
        isAsking = false
        if !isTurning { refuse(failure) }
        // A server that is no part of a cluster says so; the next may be.
        if case .refused = failure { turn() }
    }

    package func redisReady(_ connection: RedisConnection, sample: ServerTimeSample) { ask() }
    package func redisSubscribed(_ connection: RedisConnection) {}
    package func redisMessage(_ connection: RedisConnection, channel: String, payload: String) {}

    package func redisLost(_ connection: RedisConnection, _ failure: RedisFailure) {
        if !isTurning { refuse(failure) }
        follower?.clusterMapLost(failure)
    }

    // MARK: Locating one key

    package func locate(_ connection: RedisConnection, after failure: RedisFailure?) {
        if !waiting.contains(where: { $0 === connection }) { waiting.append(connection) }
        // Always by a fresh look: who asks may have lost the server it was led to.
        if failure != nil { suspect(connection.endpoint.location) }
        ask()
    }

    private func answerWaiting() {
        let told = waiting
        waiting = []
        for connection in told {
            if let location = map.owner(of: locatedSlot) {
                connection.located(location)
            } else {
                connection.notLocated(.refused("CLUSTERDOWN no server holds slot \(locatedSlot)"))
            }
        }
    }

    private func refuse(_ failure: RedisFailure) {
        let told = waiting
        waiting = []
        for connection in told { connection.notLocated(failure) }
    }
}
