// One worker's limiter over a Redis Cluster: a limiter for each server, since a server's clock, its failures and what it
// may have forgotten are its own, and the map that says whose a subject is. A decision is still one transaction in one
// trip; only what a server redirects makes another.

import EventLoop
import Identity
import LinuxIO
import Primitives
import RedisClient

final class LimiterCluster: ClusterFollower {
    let context: LimiterContext
    let leases: LeaseKeeper
    /// Sees to their renewal.
    weak var keeper: Limiter?
    private let seeds: RedisSeeds
    private let worker: Int
    let loop: Loop
    private let resolver: Resolver
    private let name: String
    private let seed: UInt64
    private let report: (LimiterEvent) -> Void

    private var watch: ClusterWatch!
    /// For slots that nobody holds, as far as is known: the loss rule decides.
    private var nobody: Limiter!
    private var shards: [RedisEndpoint.Location: Limiter] = [:]
    /// By the places of the map's primaries.
    private var byIndex: [Limiter] = []
    private var map = ClusterMap()
    private var scratch = ByteBuffer(capacity: 128)
    private var shardsMade = 0
    /// Servers that have said so themselves, and not that they are back.
    private var lost: Set<RedisEndpoint.Location> = []
    private var lossTold: RedisCause?
    private var hasReached = false
    private var sweepTimer: LoopTimer!
    private var isClosed = false
    /// Requests that several policies decide, and what they ask of each.
    var joins = Slots<ClusterJoin>()
    var parts = Slots<ClusterPart>()

    init(
        _ context: LimiterContext, _ seeds: RedisSeeds, worker: Int, leases: LeaseKeeper, loop: Loop,
        resolver: Resolver, name: String, seed: UInt64, report: @escaping (LimiterEvent) -> Void
    ) {
        self.context = context
        self.leases = leases
        self.seeds = seeds
        self.worker = worker
        self.loop = loop
        self.resolver = resolver
        self.name = name
        self.seed = seed
        self.report = report
        nobody = makeShard(nil)
        sweepTimer = LoopTimer(loop) { [weak self] in self?.sweep() }
        watch = ClusterWatch(
            seeds, name: "\(name)-map", loop: loop, resolver: resolver, seed: seed, follower: self)
    }

    /// One a server, and the one for what nobody holds.
    var limiters: [Limiter] { [nobody] + shards.values }

    private func makeShard(_ location: RedisEndpoint.Location?) -> Limiter {
        shardsMade += 1
        var endpoint = location.map { seeds.server.at($0) }
        endpoint?.takesRedirections = true
        endpoint?.takesTransactions = true
        return Limiter(
            context, shardOf: self, endpoint, worker: worker, shard: shardsMade,
            loop: loop, resolver: resolver, name: name, seed: seed &+ UInt64(shardsMade)
        ) { [weak self] event in self?.happened(event, at: location) }
    }

    // MARK: Asking

    func check(_ subject: SubjectKey, requester: any LimitRequester, token: UInt64) -> LimitDecision {
        owner(of: subject).check(subject, requester: requester, token: token)
    }

    private func slot(of subject: SubjectKey) -> Int {
        scratch.clear()
        context.key(of: subject).write(subject, to: &scratch)
        return Self.slot(of: scratch)
    }

    private static func slot(of key: borrowing ByteBuffer) -> Int { KeySlot.of(key.bytes) }

    func owner(of subject: SubjectKey) -> Limiter {
        map.index(of: slot(of: subject)).map { byIndex[$0] } ?? nobody
    }

    /// Whether a subject's slot is that server's, and not only on its way there.
    func holds(_ shard: Limiter, _ subject: SubjectKey) -> Bool { owner(of: subject) === shard }

    /// Whether every server is asked.
    var isAsking: Bool { !byIndex.isEmpty && byIndex.allSatisfy(\.isAsking) }

    // MARK: Redirections

    /// A server does not hold what it was asked for. Whatever was on its way goes to the one that does.
    func redirected(_ redirection: Redirection, _ handover: Handover?, from shard: Limiter) {
        guard !isClosed else { return }
        switch redirection {
        case .moved(let slot, let location):
            watch.moved(slot, to: location)
            if let handover { owner(of: handover.subject).take(handover) }
        case .ask(_, let location):
            guard let handover else { return }
            self.shard(at: location).take(handover, isAsked: true)
        case .tryAgain: if let handover { shard.take(handover) }
        }
    }

    private func shard(at location: RedisEndpoint.Location) -> Limiter {
        if let shard = shards[location] { return shard }
        let shard = makeShard(location)
        shards[location] = shard
        return shard
    }

    // MARK: The map

    func clusterMapChanged(_ map: ClusterMap) {
        guard !isClosed else { return }
        self.map = map
        byIndex = map.primaries.map { shard(at: $0) }
        for (index, slot) in map.firstSlots.enumerated() {
            let location = map.primaries[index]
            guard let slot, probeSlots[location].map({ map.index(of: $0) == index }) != true else { continue }
            probeSlots[location] = slot
            byIndex[index].setProbeTag(KeySlot.tag(of: slot))
        }
        // What is remembered of a window goes where the window is.
        for shard in [nobody!] + Array(shards.values) {
            for handover in shard.takeMisplaced({ owner(of: $0) === shard }) {
                owner(of: handover.subject).take(handover)
            }
        }
        sweepTimer.schedule(after: Self.sweepPause)
        settle()
    }

    /// Takes leave of servers without slots. Not at once: slots may be on their way there, or come back.
    private func sweep() {
        let used = Set(map.primaries)
        for (location, shard) in shards where !used.contains(location) {
            shards[location] = nil
            probeSlots[location] = nil
            lost.remove(location)
            shard.close()
            // Its end has answered whoever still waited, by the loss rule.
            settleMisplaced(of: shard)
        }
    }

    /// What one that was taken leave of has yet to put right is for the others.
    func settleMisplaced(of shard: Limiter) {
        guard shard !== nobody, let location = shard.location, shards[location] !== shard else { return }
        for handover in shard.takeMisplaced({ _ in false }) { owner(of: handover.subject).take(handover) }
    }

    /// A slot of each server, for the limiter's own questions.
    private var probeSlots: [RedisEndpoint.Location: Int] = [:]
    private static let sweepPause = TimeSpan.seconds(10)

    func clusterMapLost(_ failure: RedisFailure) {
        if byIndex.isEmpty { tell(failure) }
    }

    func keepLeases() { keeper?.keepLeases() }

    // MARK: What happens to the servers

    func connected() { settle() }

    func lost(_ shard: Limiter) {
        guard !isClosed, let location = shard.location else { return }
        watch.suspect(location)
    }

    private func happened(_ event: LimiterEvent, at location: RedisEndpoint.Location?) {
        guard !isClosed, let location else { return }
        switch event {
        case .lost(let failure):
            lost.insert(location)
            // Its slots may be another's soon.
            watch.refresh(urgent: true)
            if map.primaries.contains(location) { tell(failure.at(location.description)) }
        case .restored:
            lost.remove(location)
            settle()
        case .reached: settle()
        case .anomaly, .keyFailed, .dataLost: report(event)
        }
    }

    /// The cluster is whole, or it is not: one word for all servers.
    private func tell(_ failure: RedisFailure) {
        guard lossTold != failure.cause else { return }
        lossTold = failure.cause
        report(.lost(failure))
    }

    private func settle() {
        guard isAsking, !map.primaries.contains(where: { lost.contains($0) }) else { return }
        watch.calm()
        if !hasReached {
            hasReached = true
            report(.reached)
        }
        guard lossTold != nil else { return }
        lossTold = nil
        report(.restored)
    }

    func close() {
        isClosed = true
        watch.close()
        sweepTimer.cancel()
        nobody.close()
        for shard in shards.values { shard.close() }
    }
}
