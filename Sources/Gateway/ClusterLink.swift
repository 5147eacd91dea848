// The node's line to the others: heartbeats, verdicts and news through Redis. It carries; what it means is decided by
// `MembershipView` and `HealthMachine`.

import EventLoop
import Health
import Hiredis
import Membership
import Primitives
import RedisClient

protocol ClusterLinkOwner: AnyObject {
    func clusterReached()
    func clusterLost(_ failure: RedisFailure)
    func heartbeatAnswered(_ reply: HeartbeatReply)
    /// Redis answers, but not as it should: `sluice:nodes` may be of another type, or memory may be full.
    func heartbeatRefused(_ reason: String)
    func healthNews(_ news: HealthNews)
    func probeReported(_ report: ProbeReport)
    func loadTold(_ news: LoadNews)
    func breakerNews(_ news: BreakerNews)
    func breakerSnapshot(service: String, _ news: [BreakerNews])
    func claimAnswered(_ key: BackendKey, _ number: UInt64, won: Bool?)
    func operatorWords(_ fields: [(field: String, value: [UInt8])])
    func healthIgnored(_ error: HealthFormatError)
    func healthSnapshot(service: String, _ fields: [(field: String, value: [UInt8])])
    func healthSnapshotFailed()
}

final class ClusterLink: RedisRequester, RedisObserver {
    private enum Purpose {
        case heartbeat
        case snapshot(service: String)
        case probes
        case words
        case breakers(service: String)
        case claim(BackendKey, number: UInt64)
        case write
    }

    private let loop: Loop
    private let finder: RedisFinder
    private let isOnCluster: Bool
    private weak var owner: (any ClusterLinkOwner)?
    private let id: NodeID
    private let info: NodeInfo
    private var commands: RedisConnection!
    private var subscriber: RedisConnection!
    private var subscribed = false
    private(set) var isReached = false
    private var purposes: [UInt64: Purpose] = [:]
    private var nextToken: UInt64 = 0
    private var timer: LoopTimer!
    private var heartbeatUnderWay = false
    /// The server's time at a moment of ours, for the score of the next heartbeat.
    private var serverTime: (time: RedisTime, at: MonotonicTime)?

    init(
        _ topology: RedisTopology, id: NodeID, info: NodeInfo, loop: Loop, resolver: Resolver, seed: UInt64,
        sharesLoad: Bool, owner: any ClusterLinkOwner
    ) {
        self.loop = loop
        self.owner = owner
        self.id = id
        self.info = info
        isOnCluster = topology.isCluster
        finder = RedisFinder(
            topology, key: Self.placed(MembershipKeys.nodes, onCluster: topology.isCluster),
            name: "sluice-\(id)-finder", loop: loop, resolver: resolver, seed: seed)
        commands = finder.connection(name: "sluice-\(id)-control", seed: seed, observer: self)
        subscriber = finder.connection(
            name: "sluice-\(id)-news",
            channels: [HealthKeys.channel, HealthKeys.probesChannel, HealthKeys.operators, HealthKeys.breakersChannel]
                + (sharesLoad ? [LoadNews.channel] : []),
            seed: seed &+ 1, observer: self)
        timer = LoopTimer(loop) { [weak self] in self?.beat() }
        commands.start()
        subscriber.start()
    }

    /// On a cluster a transaction's keys must share a slot: what the nodes share is little, and all of it lies in that of
    /// `{sluice}`.
    private static func placed(_ name: String, onCluster: Bool) -> String {
        onCluster ? "{sluice}\(name.dropFirst("sluice".count))" : name
    }

    private func placed(_ name: String) -> String { Self.placed(name, onCluster: isOnCluster) }

    private func token(_ purpose: Purpose) -> UInt64 {
        nextToken += 1
        purposes[nextToken] = purpose
        return nextToken
    }

    // MARK: Connections

    func redisReady(_ connection: RedisConnection, sample: ServerTimeSample) {
        guard connection === commands else { return }
        serverTime = (sample.time, sample.receivedAt)
        heartbeatUnderWay = false
        beat()
        reachedIfBoth()
    }

    func redisSubscribed(_ connection: RedisConnection) {
        subscribed = true
        reachedIfBoth()
    }

    /// Subscribed first, then everything else: no news falls between the snapshot and the subscription.
    private func reachedIfBoth() {
        guard !isReached, subscribed, commands.isReady else { return }
        isReached = true
        owner?.clusterReached()
    }

    func redisLost(_ connection: RedisConnection, _ failure: RedisFailure) {
        if connection === subscriber { subscribed = false }
        let wasReached = isReached
        isReached = false
        if wasReached || connection === commands { owner?.clusterLost(failure) }
    }

    func redisMessage(_ connection: RedisConnection, channel: String, payload: String) {
        do throws(HealthFormatError) {
            switch channel {
            case HealthKeys.channel: owner?.healthNews(try HealthNews(json: Array(payload.utf8)))
            case HealthKeys.probesChannel: owner?.probeReported(try ProbeReport(json: Array(payload.utf8)))
            case HealthKeys.breakersChannel: owner?.breakerNews(try BreakerNews(json: Array(payload.utf8)))
            case LoadNews.channel: owner?.loadTold(try LoadNews(json: Array(payload.utf8)))
            case HealthKeys.operators: readWords()
            default: break
            }
        } catch {
            owner?.healthIgnored(error)
        }
    }

    // MARK: Heartbeats

    private func beat() {
        timer.schedule(after: info.heartbeat)
        guard commands.isReady, !heartbeatUnderWay, let (time, at) = serverTime else { return }
        heartbeatUnderWay = true
        loop.updateTime()
        let now = time + (loop.now - at)
        commands.beginTransaction()
        commands.write { $0.add("TIME") }
        commands.write { writer in
            writer.add("HGET")
            writer.add(placed(MembershipKeys.info))
            writer.add(id.text)
        }
        commands.write { writer in
            writer.add("ZADD")
            writer.add(placed(MembershipKeys.nodes))
            writer.add(now.microseconds)
            writer.add(id.text)
        }
        commands.write { writer in
            writer.add("HSET")
            writer.add(placed(MembershipKeys.info))
            writer.add(id.text)
            writer.add(info.json)
        }
        commands.write { writer in
            // The latest first: entries of nodes long gone must not push out the living.
            writer.add("ZREVRANGE")
            writer.add(placed(MembershipKeys.nodes))
            writer.add("0")
            writer.add(Int64(MembershipView.membersMax - 1))
            writer.add("WITHSCORES")
        }
        commands.write { writer in
            writer.add("HGETALL")
            writer.add(placed(MembershipKeys.info))
        }
        commands.endTransaction(self, token: token(.heartbeat))
    }

    private func heartbeatReplied(_ reply: Reply) {
        heartbeatUnderWay = false
        // Array(6) Array(2) seconds micros boot added set Array(2n) … Array(2m) …
        guard reply.kind(1) == .array, let seconds = reply.integer(2), let micros = reply.integer(3),
            reply.kind(7) == .array
        else {
            let errors = (0..<reply.count).filter { reply.kind($0) == .error }.map { reply.text($0) }
            owner?.heartbeatRefused(errors.first ?? "an answer of another shape")
            return
        }
        let time = RedisTime(microseconds: saturatingAdd(saturatingMultiply(seconds, 1_000_000), micros))
        loop.updateTime()
        serverTime = (time, loop.now)
        var ignored = 0
        var previousBoot: BootID?
        if reply.kind(4) == .bulk, let before = try? NodeInfo(json: Array(reply.text(4).utf8), assumed: info.heartbeat)
        {
            previousBoot = before.boot
        }
        var lastSeen: [(id: NodeID, time: RedisTime)] = []
        let seenCount = reply.elementCount(7) ?? 0
        var index = 8
        for _ in 0..<seenCount / 2 {
            if let node = try? NodeID(reply.text(index)), let score = Double(reply.text(index + 1)), abs(score) < 9e15 {
                lastSeen.append((node, RedisTime(microseconds: Int64(score))))
            } else {
                ignored += 1
            }
            index += 2
        }
        var infos: [NodeID: NodeInfo] = [:]
        if reply.kind(index) == .array {
            let count = reply.elementCount(index) ?? 0
            index += 1
            for _ in 0..<count / 2 {
                if let node = try? NodeID(reply.text(index)),
                    let theirs = try? NodeInfo(json: Array(reply.text(index + 1).utf8), assumed: info.heartbeat)
                {
                    infos[node] = theirs
                } else {
                    ignored += 1
                }
                index += 2
            }
        }
        owner?.heartbeatAnswered(
            HeartbeatReply(
                serverTime: time, lastSeen: lastSeen, info: infos, previousBoot: previousBoot, ignored: ignored))
    }

    /// Takes entries of nodes that are long gone out of Redis.
    func prune(before bound: RedisTime, _ nodes: [NodeID]) {
        guard commands.isReady else { return }
        commands.beginTransaction()
        commands.write { writer in
            writer.add("ZREMRANGEBYSCORE")
            writer.add(placed(MembershipKeys.nodes))
            writer.add("-inf")
            writer.add(bound.microseconds)
        }
        commands.write { writer in
            writer.add("HDEL")
            writer.add(placed(MembershipKeys.info))
            for node in nodes { writer.add(node.text) }
        }
        commands.endTransaction(self, token: token(.write))
    }

    /// Takes this node out of the cluster: the others need not wait for missed heartbeats.
    func leave() {
        guard commands.isReady else { return }
        timer.cancel()
        commands.beginTransaction()
        commands.write { writer in
            writer.add("ZREM")
            writer.add(placed(MembershipKeys.nodes))
            writer.add(id.text)
        }
        commands.write { writer in
            writer.add("HDEL")
            writer.add(placed(MembershipKeys.info))
            writer.add(id.text)
        }
        commands.endTransaction(self, token: token(.write))
    }

    // MARK: Health

    /// A verdict and the news of it, in one transaction: nobody can see one without the other.
    func publish(_ news: HealthNews) {
        guard commands.isReady else { return }
        commands.beginTransaction()
        commands.write { writer in
            writer.add("HSET")
            writer.add(placed(HealthKeys.hash(service: news.backend.service)))
            writer.add(HealthKeys.field(url: news.backend.url, node: news.node))
            writer.add(news.verdict.json)
        }
        commands.write { writer in
            writer.add("PUBLISH")
            writer.add(HealthKeys.channel)
            writer.add(news.json)
        }
        commands.endTransaction(self, token: token(.write))
    }

    /// How a probe in turn ended.
    func publish(_ report: ProbeReport) {
        guard commands.isReady else { return }
        let key = placed(HealthKeys.probes(service: report.backend.service))
        commands.beginTransaction()
        commands.write { writer in
            writer.add("HSET")
            writer.add(key)
            writer.add(report.backend.url)
            writer.add(report.json)
        }
        commands.write { writer in
            writer.add("PEXPIRE")
            writer.add(key)
            writer.add(HealthKeys.probesLifetime.milliseconds)
        }
        commands.write { writer in
            writer.add("PUBLISH")
            writer.add(HealthKeys.probesChannel)
            writer.add(report.json)
        }
        commands.endTransaction(self, token: token(.write))
    }

    /// What this node has in flight.
    func publish(_ news: LoadNews) {
        guard commands.isReady else { return }
        commands.write { writer in
            writer.add("PUBLISH")
            writer.add(LoadNews.channel)
            writer.add(news.json)
        }
        commands.sendCommand(self, token: token(.write))
    }

    /// The number of a breaker, and the news of it.
    func publish(_ news: BreakerNews) {
        guard commands.isReady else { return }
        let key = placed(HealthKeys.breakers(service: news.backend.service))
        commands.beginTransaction()
        commands.write { writer in
            writer.add("HSET")
            writer.add(key)
            writer.add(news.backend.url)
            writer.add(news.json)
        }
        commands.write { writer in
            writer.add("PEXPIRE")
            writer.add(key)
            writer.add(HealthKeys.probesLifetime.milliseconds)
        }
        commands.write { writer in
            writer.add("PUBLISH")
            writer.add(HealthKeys.breakersChannel)
            writer.add(news.json)
        }
        commands.endTransaction(self, token: token(.write))
    }

    /// Sets the key of a trial unless somebody has. Who comes too late makes it live longer, which does no harm: it
    /// belongs to this one number.
    func claim(_ key: BackendKey, number: UInt64, lifetime: TimeSpan) {
        let name = placed(HealthKeys.trial(key, number: number))
        commands.beginTransaction()
        commands.write { writer in
            writer.add("SETNX")
            writer.add(name)
            writer.add(id.text)
        }
        commands.write { writer in
            writer.add("PEXPIRE")
            writer.add(name)
            writer.add(max(1_000, lifetime.milliseconds))
        }
        commands.endTransaction(self, token: token(.claim(key, number: number)))
    }

    /// An operator's word, and the news that there is one.
    func write(_ word: OperatorWord, of key: BackendKey) {
        guard commands.isReady else { return }
        commands.beginTransaction()
        commands.write { writer in
            writer.add("HSET")
            writer.add(placed(HealthKeys.operators))
            writer.add(HealthKeys.operatorField(key))
            writer.add(word.json)
        }
        commands.write { writer in
            writer.add("PUBLISH")
            writer.add(HealthKeys.operators)
            writer.add("changed")
        }
        commands.endTransaction(self, token: token(.write))
    }

    func readWords() {
        guard commands.isReady else { return }
        commands.write { writer in
            writer.add("HGETALL")
            writer.add(placed(HealthKeys.operators))
        }
        commands.sendCommand(self, token: token(.words))
    }

    func remove(service: String, fields: [String]) {
        guard commands.isReady, !fields.isEmpty else { return }
        commands.write { writer in
            writer.add("HDEL")
            writer.add(placed(HealthKeys.hash(service: service)))
            for field in fields { writer.add(field) }
        }
        commands.sendCommand(self, token: token(.write))
    }

    func readSnapshot(service: String) {
        guard commands.isReady else { return }
        commands.write { writer in
            writer.add("HGETALL")
            writer.add(placed(HealthKeys.hash(service: service)))
        }
        commands.sendCommand(self, token: token(.snapshot(service: service)))
        commands.write { writer in
            writer.add("HGETALL")
            writer.add(placed(HealthKeys.probes(service: service)))
        }
        commands.sendCommand(self, token: token(.probes))
        commands.write { writer in
            writer.add("HGETALL")
            writer.add(placed(HealthKeys.breakers(service: service)))
        }
        commands.sendCommand(self, token: token(.breakers(service: service)))
    }

    // MARK: Answers

    func redisReplied(_ reply: Reply, token: UInt64) {
        guard let purpose = purposes.removeValue(forKey: token) else { return }
        switch purpose {
        case .heartbeat: heartbeatReplied(reply)
        case .write: break
        case .probes:
            for index in stride(from: 2, to: reply.count, by: 2) {
                do throws(HealthFormatError) {
                    owner?.probeReported(try ProbeReport(json: Array(reply.bytes(index))))
                } catch {
                    owner?.healthIgnored(error)
                }
            }
        case .claim(let key, let number):
            // Array(2) set expires
            owner?.claimAnswered(key, number, won: reply.kind(0) == .array ? reply.integer(1).map { $0 == 1 } : nil)
        case .breakers(let service):
            guard reply.kind(0) == .array else { return }
            var news: [BreakerNews] = []
            for index in stride(from: 2, to: reply.count, by: 2) {
                do throws(HealthFormatError) {
                    news.append(try BreakerNews(json: Array(reply.bytes(index))))
                } catch {
                    owner?.healthIgnored(error)
                }
            }
            owner?.breakerSnapshot(service: service, news)
        case .words:
            if reply.kind(0) == .array { owner?.operatorWords(fields(reply)) }
        case .snapshot(let service):
            guard reply.kind(0) == .array else {
                owner?.healthSnapshotFailed()
                return
            }
            owner?.healthSnapshot(service: service, fields(reply))
        }
    }

    /// A hash as `HGETALL` answers it.
    private func fields(_ reply: Reply) -> [(field: String, value: [UInt8])] {
        var fields: [(field: String, value: [UInt8])] = []
        var index = 1
        while index + 1 < reply.count {
            fields.append((reply.text(index), Array(reply.text(index + 1).utf8)))
            index += 2
        }
        return fields
    }

    func redisFailed(_ failure: RedisFailure, token: UInt64) {
        guard let purpose = purposes.removeValue(forKey: token) else { return }
        switch purpose {
        case .heartbeat:
            heartbeatUnderWay = false
            if case .refused(let text) = failure { owner?.heartbeatRefused(text) }
        case .snapshot: owner?.healthSnapshotFailed()
        case .claim(let key, let number): owner?.claimAnswered(key, number, won: nil)
        case .write, .probes, .words, .breakers: break
        }
    }
}
