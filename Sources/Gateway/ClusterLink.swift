// The node's line to the others: heartbeats, verdicts and news through Redis. It carries; what it means is decided by
// `MembershipView` and `HealthMachine`.

import EventLoop
import Health
import Hiredis
import Membership
import Primitives
import RedisClient

protocol ClusterLinkOwner: AnyObject {
    /// Redis has taken a heartbeat, and what is published arrives, or it is known that it will not.
    func clusterReached()
    /// There is no line to Redis, or it takes no heartbeats.
    func clusterLost(_ failure: RedisFailure)
    func heartbeatAnswered(_ reply: HeartbeatReply)
    /// Redis does not let us hear what is published.
    func newsRefused(_ failure: RedisFailure)
    /// What is published from now on arrives.
    func newsHeard()
    /// What is published is not heard: what the nodes share is to be read.
    func newsMissing()
    /// Whether sentinels let us hear that the primary is another one.
    func movesUnheard(_ failure: RedisFailure?)
    func healthNews(_ news: HealthNews)
    func probeReported(_ report: ProbeReport)
    func loadTold(_ news: LoadNews)
    func limitsAsked(by asker: NodeID)
    func limitsTold(_ news: LimitNews)
    func breakerNews(_ news: BreakerNews)
    func breakerSnapshot(service: String, _ news: [BreakerNews])
    func claimAnswered(_ key: BackendKey, _ number: UInt64, won: Bool?)
    func operatorWords(_ fields: [(field: String, value: [UInt8])])
    func configurationTold(_ message: String)
    func healthIgnored(_ error: HealthFormatError)
    func healthSnapshot(service: String, _ fields: [(field: String, value: [UInt8])])
    func healthSnapshotFailed()
    /// The hash of a service is not read for a while.
    func healthSnapshotRefused(service: String)
    /// Something of what the nodes share cannot be read or written although Redis answers.
    func clusterAnomaly(_ text: String, _ cause: RedisCause)
}

final class ClusterLink: RedisRequester, RedisObserver {
    enum Purpose {
        case heartbeat
        case snapshot(service: String)
        case probes(service: String)
        case words
        case breakers(service: String)
        case claim(BackendKey, number: UInt64)
        /// Into this key.
        case write(String)
        case call((Result<Reply, RedisFailure>) -> Void)
        /// What is only published.
        case message
        /// What is written and published at once; the words without what is published have the other purpose.
        indirect case saying([[String]], Purpose)
    }

    let loop: Loop
    private let finder: RedisFinder
    private let isOnCluster: Bool
    private(set) weak var owner: (any ClusterLinkOwner)?
    let id: NodeID
    /// What this node tells of itself.
    var info: NodeInfo
    private let listening: SocketAddress
    /// What the others are told of this node's traffic.
    var activity: NodeActivity?
    private(set) var commands: RedisConnection!
    private var subscriber: RedisConnection!
    private(set) var hearing = Hearing.missing
    /// Until then nothing is published.
    var mutedUntil = MonotonicTime(nanoseconds: .min)
    /// Who we are to Redis.
    let user: String
    /// Redis has taken a heartbeat since the line is there.
    private var isWritten = false
    /// Heartbeats in a row that it has not taken.
    private var refusals: Int64 = 0
    /// How often the slot has moved since.
    private var moves = 0
    private static let movesMax = 3
    private(set) var isReached = false
    /// Why it was not reached last.
    private(set) var lastFailure = RedisFailure.notConnected
    private var purposes: [UInt64: Purpose] = [:]
    private var nextToken: UInt64 = 0
    private(set) var timer: LoopTimer!
    var heartbeatUnderWay = false
    /// It announces itself no more.
    var hasLeft = false
    private var closing: LoopTimer?
    /// The server's time at a moment of ours, for the score of the next heartbeat.
    var beatSentAt = MonotonicTime(nanoseconds: 0)
    /// The last heartbeat's look at the server's clock.
    var clockSample: ServerTimeSample?
    var serverTime: (time: RedisTime, at: MonotonicTime)?
    /// Whom the last heartbeat has seen.
    var seen: [NodeID] = []
    /// Of whom the heartbeat under way asks; `nil`: of all.
    var askedInfos: [NodeID]?
    /// Keys that hold more than any cluster writes, and until when they are left alone.
    private var avoided: [String: MonotonicTime] = [:]
    /// An answer could not be read, and whose it was is known.
    private var isBlamed = false
    /// What the log has been told of, by key.
    private var anomalies: [String: String] = [:]
    /// How long this node's own news take.
    private(set) var newsDelay = NewsDelay()

    /// The fields of a hash that is read whole: a thousand nodes that all doubt thirty backends of a service.
    static let fieldsMax = 1 << 15
    /// How long a key is left alone that holds more.
    private static let avoidance = TimeSpan.seconds(60)

    init(
        _ topology: RedisTopology, id: NodeID, info: NodeInfo, listening: SocketAddress, loop: Loop,
        resolver: Resolver, seed: UInt64, sharesLoad: Bool, owner: any ClusterLinkOwner
    ) {
        self.loop = loop
        self.owner = owner
        self.id = id
        self.info = info
        self.listening = listening
        isOnCluster = topology.isCluster
        user = topology.user
        finder = RedisFinder(
            topology, key: MembershipKeys.placed(MembershipKeys.nodes, onCluster: topology.isCluster),
            name: "sluice-\(id)-finder", loop: loop, resolver: resolver, seed: seed)
        commands = finder.connection(
            name: "sluice-\(id)-control", transactions: true, seed: seed, observer: self)
        subscriber = finder.connection(
            name: "sluice-\(id)-news",
            channels: [
                HealthKeys.channel, HealthKeys.probesChannel, HealthKeys.operators, HealthKeys.breakersChannel,
                ConfigurationFollower.channel, LimitNews.channel, LimitNews.answers(to: id),
            ]
                + (sharesLoad ? [LoadNews.channel] : []),
            seed: seed &+ 1, observer: self)
        timer = LoopTimer(loop) { [weak self] in self?.beat() }
        commands.start()
        subscriber.start()
    }

    func placed(_ name: String) -> String { MembershipKeys.placed(name, onCluster: isOnCluster) }

    func token(_ purpose: Purpose) -> UInt64 {
        nextToken += 1
        purposes[nextToken] = purpose
        return nextToken
    }

    // MARK: Connections

    func redisReady(_ connection: RedisConnection, sample: ServerTimeSample) {
        guard connection === commands else { return }
        serverTime = (sample.time, sample.receivedAt)
        heartbeatUnderWay = false
        isBlamed = false
        isWritten = false
        refusals = 0
        mutedUntil = MonotonicTime(nanoseconds: .min)
        beat()
        settle()
    }

    func redisSubscribed(_ connection: RedisConnection) {
        hearing = .heard
        owner?.newsHeard()
        settle()
    }

    /// Subscribed first, then everything else: no news falls between the snapshot and the subscription. A server that we
    /// are connected to may yet take no writes, so it is one that has taken a heartbeat.
    private func settle() {
        guard !isReached, hearing != .missing, commands.isReady, isWritten || hasLeft else { return }
        isReached = true
        owner?.clusterReached()
    }

    func redisLost(_ connection: RedisConnection, _ failure: RedisFailure) {
        lastFailure = failure
        newsDelay.interrupted()
        if connection === subscriber {
            if case .refused = failure, failure.cause == .permission || failure.cause == .other {
                hearing = .refused
                owner?.newsRefused(failure)
                settle()
                return
            }
            hearing = .missing
            // Where the other line is gone too, that one tells.
            guard commands.isReady else { return }
        } else {
            isWritten = false
            // It goes on at another server at once; if it does not, that is told.
            if case .moved = failure, moves < Self.movesMax {
                moves += 1
                isReached = false
                return
            }
        }
        isReached = false
        owner?.clusterLost(failure)
    }

    func redisMovesUnheard(_ connection: RedisConnection, _ failure: RedisFailure?) { owner?.movesUnheard(failure) }

    private static let beating = "heartbeat"

    /// A heartbeat was written.
    func heartbeatTaken() {
        isWell(Self.beating)
        isWritten = true
        refusals = 0
        moves = 0
        if isReached, hearing == .refused { owner?.newsMissing() }
        settle()
    }

    /// Redis answers, but does not take heartbeats: it may be full, or `sluice:nodes` something else.
    func heartbeatRefused(_ failure: RedisFailure) {
        lastFailure = failure
        refusals += 1
        // A slot that moves does so for milliseconds, and no node is gone before it has missed some.
        if refusals < MembershipView.beatsMissedMax, case .refused(let text) = failure,
            Redirection(text, from: commands.endpoint.location) != nil
        {
            complain(of: Self.beating, "heartbeats are refused: \(text)", failure.cause)
            return
        }
        isWritten = false
        isReached = false
        newsDelay.interrupted()
        owner?.clusterLost(failure)
    }

    func redisMessage(_ connection: RedisConnection, channel: String, payload: String) {
        do throws(HealthFormatError) {
            switch channel {
            case HealthKeys.channel:
                let news = try HealthNews(json: Array(payload.utf8))
                if news.node == id, news.verdict.boot == info.boot { heardItself(channel) }
                owner?.healthNews(news)
            case HealthKeys.probesChannel:
                let report = try ProbeReport(json: Array(payload.utf8))
                if report.node == id { heardItself(channel) }
                owner?.probeReported(report)
            case HealthKeys.breakersChannel: owner?.breakerNews(try BreakerNews(json: Array(payload.utf8)))
            case LoadNews.channel: owner?.loadTold(try LoadNews(json: Array(payload.utf8)))
            case LimitNews.channel: if let asker = try? NodeID(payload) { owner?.limitsAsked(by: asker) }
            case LimitNews.answers(to: id): owner?.limitsTold(try LimitNews(json: Array(payload.utf8)))
            case HealthKeys.operators: readWords()
            case ConfigurationFollower.channel: owner?.configurationTold(payload)
            default: break
            }
        } catch {
            owner?.healthIgnored(error)
        }
    }

    private func heardItself(_ channel: String) {
        loop.updateTime()
        newsDelay.heard(channel, at: loop.now)
    }

    /// Ends the line: another takes its place.
    ///
    /// - Parameter leaving: whether the nodes at this Redis see this one no more.
    func close(leaving: Bool) {
        owner = nil
        timer.cancel()
        if leaving { leave() }
        // What was just said leaves at the end of this turn.
        let end = LoopTimer(loop) { [commands, subscriber, finder] in
            commands?.close()
            subscriber?.close()
            finder.close()
        }
        closing = end
        end.schedule(after: .milliseconds(100))
    }

    /// Where another node finds out whether this one runs.
    var reach: SocketAddress? { listening.reach(onNetworkOf: commands.localAddress) }

    /// Whether Redis is on this host, and so are all that reach it by an address of this host alone.
    var isOnThisHost: Bool { commands.localAddress?.ip.isLoopback ?? true }

    // MARK: Commands

    /// One command, whose arguments are text.
    func command(_ purpose: Purpose, _ words: String...) { command(purpose, words) }

    func command(_ purpose: Purpose, _ words: [String]) {
        write(words[0], Array(words.dropFirst()))
        commands.sendCommand(self, token: token(purpose))
    }

    /// Whatever `body` writes, as one transaction.
    func transaction(_ purpose: Purpose, _ body: () -> Void) {
        commands.beginTransaction()
        body()
        commands.endTransaction(self, token: token(purpose))
    }

    /// One command, or a transaction of several, none of which may be answered by an error.
    func ask(_ words: [[String]], _ then: @escaping (Result<Reply, RedisFailure>) -> Void) {
        guard commands.isReady else {
            then(.failure(lastFailure))
            return
        }
        if words.count == 1, let only = words.first {
            command(.call(then), only)
        } else {
            say(words, .call(then))
        }
    }

    func write(_ name: String, _ words: String...) { write(name, words) }

    func write(_ name: String, _ words: [String]) {
        commands.write { writer in
            writer.add(name)
            for word in words { writer.add(word) }
        }
    }

    // MARK: Answers

    func redisReplied(_ reply: Reply, token: UInt64) {
        if let purpose = purposes.removeValue(forKey: token) { replied(reply, purpose) }
    }

    private func replied(_ reply: Reply, _ purpose: Purpose) {
        switch purpose {
        case .saying(_, let purpose): replied(reply, purpose)
        case .message: break
        case .heartbeat: heartbeatReplied(reply)
        case .write(let key): written(key, reply)
        case .call(let then):
            if let error = Self.error(in: reply) { then(.failure(.refused(error))) } else { then(.success(reply)) }
        case .probes(let service): probesReplied(reply, service: service)
        case .breakers(let service): breakersReplied(reply, service: service)
        case .words: wordsReplied(reply)
        case .snapshot(let service): snapshotReplied(reply, service: service)
        case .claim(let key, let number):
            owner?.claimAnswered(key, number, won: reply.kind(0) == .status)
        }
    }

    /// An error of a single command hides in the answer to its transaction.
    private func written(_ key: String, _ reply: Reply) {
        if let error = Self.error(in: reply) {
            complain(of: key, "\(key) cannot be written: \(error)", RedisCause(errorText: error))
        } else {
            isWell(key)
        }
    }

    private static func error(in reply: Reply) -> String? {
        (0..<reply.count).first { reply.kind($0) == .error }.map { reply.text($0) }
    }

    func redisFailed(_ failure: RedisFailure, token: UInt64) {
        if let purpose = purposes.removeValue(forKey: token) { failed(failure, purpose) }
    }

    private func failed(_ failure: RedisFailure, _ purpose: Purpose) {
        if case .saying(let words, let purpose) = purpose {
            if goesOnMute(failure) { say(words, purpose) } else { failed(failure, purpose) }
            return
        }
        blame(purpose, failure)
        switch purpose {
        case .heartbeat:
            heartbeatUnderWay = false
            // The end of the connection, where that is next, tells of itself.
            if case .refused = failure, !failure.cause.asksForAnotherConnection { heartbeatRefused(failure) }
        case .snapshot(let service):
            if case .refused = failure, failure.cause == .wrongType {
                owner?.healthSnapshotRefused(service: service)
            } else {
                owner?.healthSnapshotFailed()
            }
        case .claim(let key, let number): owner?.claimAnswered(key, number, won: nil)
        case .call(let then): then(.failure(failure))
        case .message: _ = goesOnMute(failure)
        case .write, .probes, .words, .breakers, .saying: break
        }
    }

    // MARK: What others have put there

    /// Tells of a key that is no hash or takes no writes; and where an answer was too large to be read, which ends the
    /// connection, leaves its key alone. The first that fails has it: what was asked after it has not been answered.
    private func blame(_ purpose: Purpose, _ failure: RedisFailure) {
        let key: String? =
            switch purpose {
            case .heartbeat: askedInfos == nil ? MembershipKeys.info : nil
            case .snapshot(let service): HealthKeys.hash(service: service)
            case .probes(let service): HealthKeys.probes(service: service)
            case .breakers(let service): HealthKeys.breakers(service: service)
            case .words: HealthKeys.operators
            case .claim, .write, .call, .message, .saying: nil
            }
        let cause = failure.cause
        switch (failure, purpose) {
        case (.tooLarge(let reason), _):
            if !isBlamed, let key { avoid(key, reason) }
            isBlamed = true
        case (.refused, .heartbeat): break
        // It is asked for again where the slot is by now.
        case (.refused, _) where cause == .moved && isOnCluster: break
        case (.refused(let text), .write(let key)): complain(of: key, "\(key) cannot be written: \(text)", cause)
        case (.refused(let text), .claim(let key, _)):
            complain(of: HealthKeys.trial(key, number: 0), "no trial of \(key.url) can be claimed: \(text)", cause)
        case (.refused(let text), _): if let key { complain(of: key, "\(key) cannot be read: \(text)", cause) }
        case (.notConnected, _), (.lost, _), (.unanswered, _), (.silent, _), (.late, _), (.moved, _), (.malformed, _),
            (.untrusted, _), (.replaced, _), (.sentinel, _):
            break
        }
    }

    func isAvoided(_ key: String) -> Bool {
        guard let until = avoided[key] else { return false }
        if until > loop.now { return true }
        avoided[key] = nil
        return false
    }

    func avoid(_ key: String, _ reason: String) {
        avoided[key] = loop.now + Self.avoidance
        complain(
            of: key,
            "\(key) holds more than any cluster writes, and is not read for \(Self.avoidance): \(reason); "
                + "delete it, and the nodes write what they mean again", .malformed)
    }

    func isWell(_ key: String) { anomalies[key] = nil }

    /// Once for each reason.
    func complain(of key: String, _ text: String, _ cause: RedisCause) {
        guard anomalies[key] != text, anomalies[key] != nil || anomalies.count < Self.fieldsMax else { return }
        anomalies[key] = text
        owner?.clusterAnomaly(text, cause)
    }

    func saidSomething(_ channel: String) {
        loop.updateTime()
        if isReached, hearing == .heard { newsDelay.said(channel, at: loop.now) }
    }
}
