// One configuration with all that a node makes of it before any traffic sees it: routes, limits, logs. What the one before
// has already and the new one wants too goes on in it: connections to Redis, windows, counters, open files.

package import Configuration
import EventLoop
import LinuxIO
import Primitives
import RateLimiting
import RedisClient
import TLS

package final class Generation: Sendable {
    package let configuration: Configuration
    /// The version that it is, where it is the cluster's and not the node's own.
    let followed: Followed?
    /// Of the text that it was read from.
    let hash: String
    let context: NodeContext
    let limiterContext: LimiterContext?
    /// Limiters that Redis has known of this process.
    let limiterEras: Int
    let limitStatus: LimitStatus
    /// Equal where the configuration is, on any node.
    let sharedName: String
    let redis: RedisTopology?
    /// What files of certificates and keys hold by now, where Redis is as before: connections that are well go on.
    private let renewal: TLSRenewal?
    /// Where the access log goes, as a file that may be renamed under us.
    let accessLogStamp: FileStamp?
    /// What it has lost since the start.
    let accessLogLosses: LogLosses
    /// What has become of spans since the start.
    let spanCounts: SpanCounts

    /// What all configurations of a process have in common.
    struct Basis: Sendable {
        let id: String
        let boot: UInt64
        let workerCount: Int
        let descriptors: Int
        let resolver: Resolver
        let failures: RedisFailureCounts
        /// Of the access log.
        let losses: LogLosses
        let spans: SpanCounts
    }

    /// - Parameters:
    ///   - text: what it was read from.
    ///   - before: the one in force; `nil` at the start.
    init(
        _ configuration: Configuration, _ basis: Basis, text: String, followed: Followed? = nil,
        before: Generation? = nil
    ) throws(NodeStartError) {
        hash = Node.hash(of: text)
        self.followed = followed
        self.configuration = configuration
        sharedName = configuration.sharedName
        let (limit, names) = (configuration.rateLimit, configuration.services.map(\.name))
        let old = before?.configuration
        let keepsRedis = before != nil && limit?.redisURL == old?.rateLimit?.redisURL
        if keepsRedis {
            redis = before?.redis
            renewal = try tlsRenewal(of: redis)
        } else {
            redis = if let url = limit?.redisURL { try topology(of: url) } else { nil }
            renewal = nil
        }
        // Logs are opened last: what fails before them leaves nothing open.
        let authentication = try Self.authentication(configuration, basis, redis: redis, before: before)
        let spanExporter = try Self.spanExporter(configuration, basis, before: before)
        let policies = limit.map { Node.policies($0) } ?? []
        let isSameLimit =
            limit == old?.rateLimit && (names == old?.services.map(\.name) || !Self.countsServices(policies, limit))
        let limiterSetup: LimiterSetup
        var eras = before?.limiterEras ?? 0
        if let before, keepsRedis, isSameLimit {
            limiterSetup = before.context.limiterSetup
            limiterContext = before.limiterContext
        } else if policies.isEmpty {
            (limiterSetup, limiterContext) = (.none, nil)
        } else if let limit, let redis {
            let context = LimiterContext(
                policies: policies, services: names, tellsRemaining: limit.headers == .all,
                lossRule: Node.lossRule(limit.onRedisLoss), timeout: limit.timeout,
                boot: basis.boot, era: eras, seed: SystemClock.random64(), onCluster: redis.isCluster,
                decisions: try Node.openDecisionLog(limit.decisionLog, policies, names), failures: basis.failures,
                before: before?.limiterContext, at: SystemClock.monotonic(), workers: basis.workerCount)
            eras += 1
            limiterContext = context
            limiterSetup = .redis(context, redis, basis.resolver)
        } else {
            limiterContext = nil
            limiterSetup = .memory(
                Self.buckets(policies, names, before: before)
                    ?? TokenBucketStore(
                        policies: policies, services: names, seed: SystemClock.random64()))
        }
        limiterEras = eras
        let target = configuration.gateway.accessLog
        accessLogLosses = basis.losses
        spanCounts = basis.spans
        let sink: LogSink?
        if let before, target == old?.gateway.accessLog, before.accessLogStamp == Self.stamp(target) {
            sink = before.context.accessLogSink
        } else {
            do throws(NodeStartError) {
                sink = try Node.openAccessLog(target, basis.losses)
            } catch {
                if limiterContext !== before?.limiterContext { Self.decisions(of: limiterContext)?.close() }
                throw error
            }
        }
        // The file may be there only now.
        accessLogStamp = Self.stamp(target)
        context = NodeContext(
            configuration, id: basis.id, workerCount: basis.workerCount, descriptors: basis.descriptors,
            accessLogSink: sink, limiterSetup: limiterSetup, policies: policies, authentication: authentication,
            spanExporter: spanExporter, before: before?.context)
        limitStatus = LimitStatus(policies, services: names, limiterSetup)
    }

    /// Lets the connections to Redis that are made from here on go by what the files hold. Returns whether that is
    /// anything else.
    func takeRenewal() -> Bool {
        guard let renewal, let tls = redis?.tls else { return false }
        tls.take(renewal)
        return true
    }

    /// The logs that only this one of the two writes to.
    func logs(notOf other: Generation) -> (access: LogSink?, decisions: DecisionLog?) {
        (
            context.accessLogSink === other.context.accessLogSink ? nil : context.accessLogSink,
            limiterContext === other.limiterContext ? nil : Self.decisions(of: limiterContext)
        )
    }

    static func decisions(of context: LimiterContext?) -> DecisionLog? { context?.decisions as? DecisionLog }

    /// Who looks at credentials goes on where nothing is different for it: it knows keys, and has a line to Redis.
    private static func authentication(
        _ configuration: Configuration, _ basis: Basis, redis: RedisTopology?, before: Generation?
    ) throws(NodeStartError) -> Authentication? {
        guard let settings = configuration.auth else { return nil }
        if let before, let service = before.context.authentication?.service, before.configuration.auth == settings,
            before.configuration.rateLimit?.redisURL == configuration.rateLimit?.redisURL,
            before.configuration.rateLimit?.tierNames == configuration.rateLimit?.tierNames
        {
            return Authentication(configuration, settings, service: service)
        }
        let service = try Authentication.service(
            configuration, settings, redis: redis, resolver: basis.resolver, id: basis.id,
            failures: basis.failures, seed: SystemClock.random64())
        return Authentication(configuration, settings, service: service)
    }

    /// Who sends spans goes on where nothing is different for it: it has spans that wait.
    private static func spanExporter(
        _ configuration: Configuration, _ basis: Basis, before: Generation?
    ) throws(NodeStartError) -> SpanExporter? {
        guard let settings = configuration.tracing?.otlp else { return nil }
        if let exporter = before?.context.spanExporter, exporter.settings == settings { return exporter }
        do throws(SystemError) {
            return try SpanExporter(
                settings, node: basis.id, resolver: basis.resolver, counts: basis.spans, seed: SystemClock.random64())
        } catch {
            throw NodeStartError(description: "tracing.otlp: \(error)")
        }
    }

    private static func stamp(_ target: Configuration.AccessLog) -> FileStamp? {
        switch target {
        case .off, .standardOutput: nil
        case .file(let path): FileStamp.identity(of: path)
        }
    }

    /// Whether services stand in windows by their numbers.
    private static func countsServices(_ policies: [Policy], _ limit: Configuration.RateLimit?) -> Bool {
        limit?.decisionLog != nil || policies.contains { $0.key == .service }
    }

    /// Buckets go on under other rates: how full each is stays.
    private static func buckets(_ policies: [Policy], _ services: [String], before: Generation?) -> TokenBucketStore? {
        guard let before, case .memory(let store) = before.context.limiterSetup else { return nil }
        return TokenBucketStore(policies: policies, services: services, before: store)
    }
}

/// A configuration on its way to the workers.
final class Succession: Sendable {
    let generation: Generation
    /// Sockets for other addresses; `nil` where the address stays.
    let sockets: [[ListeningSocket]]?
    let admin: AdminSuccession
    /// Called on the control loop when every worker goes by it, or with what stood in its way.
    let done: @Sendable (String?) -> Void

    enum AdminSuccession: Sendable {
        case unchanged
        case off
        case socket(ListeningSocket)
    }

    init(
        _ generation: Generation, sockets: [[ListeningSocket]]?, admin: AdminSuccession,
        done: @escaping @Sendable (String?) -> Void
    ) {
        self.generation = generation
        self.sockets = sockets
        self.admin = admin
        self.done = done
    }
}
