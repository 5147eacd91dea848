// What all workers of a node share: facts that never change while it runs.

import Configuration
import EventLoop
import HTTP1
import Identity
import Primitives
import RateLimiting
import RedisClient

/// What consistent hashing goes by in one service.
struct HashSource: Sendable {
    let key: Configuration.HashOn
    /// The name of the header or cookie, in bytes.
    private let name: [UInt8]
    private let isUsed: Bool

    init(_ service: Configuration.Service) {
        key = service.hashOn
        isUsed = service.strategy == .consistentHash
        switch service.hashOn {
        case .header(let name), .cookie(let name): self.name = Array(name.utf8)
        case .client, .user, .path: name = []
        }
    }

    /// A client without the header or cookie, or that nobody has identified, is told apart by its address.
    ///
    /// - Parameter user: the hash of the user's name.
    func hash(_ head: borrowing RequestHead, _ bytes: Span<UInt8>, client: IPAddress, user: UInt64? = nil) -> UInt64 {
        guard isUsed else { return 0 }
        switch key {
        case .client: return ofClient(client)
        case .user: return user.map { mix64($0) } ?? ofClient(client)
        case .path: return stableHash(bytes.extracting(head.path))
        case .header:
            for index in 0..<head.fields.count where equals(bytes, head.fields[index].name, ignoringCase: true) {
                return stableHash(bytes.extracting(head.fields[index].value))
            }
            return ofClient(client)
        case .cookie:
            for index in 0..<head.fields.count where head.fields[index].id == .cookie {
                if let value = cookie(bytes, head.fields[index].value) { return stableHash(bytes.extracting(value)) }
            }
            return ofClient(client)
        }
    }

    private func ofClient(_ client: IPAddress) -> UInt64 {
        let address = client.subscriber
        return mix64(mix64(address.high) ^ address.low)
    }

    private func equals(_ bytes: Span<UInt8>, _ range: Range<Int>, ignoringCase: Bool) -> Bool {
        guard range.count == name.count else { return false }
        for i in 0..<name.count {
            let (a, b) = (bytes[range.lowerBound + i], name[i])
            let letter = a | 0x20 >= 0x61 && a | 0x20 <= 0x7a
            if a != b, !(ignoringCase && letter && a | 0x20 == b | 0x20) { return false }
        }
        return true
    }

    /// The value of our cookie in `a=1; b=2` (RFC 6265 §4.2.1).
    private func cookie(_ bytes: Span<UInt8>, _ field: Range<Int>) -> Range<Int>? {
        var start = field.lowerBound
        while start < field.upperBound {
            var end = start
            while end < field.upperBound, bytes[end] != UInt8(ascii: ";") { end += 1 }
            while start < end, bytes[start] == UInt8(ascii: " ") { start += 1 }
            var equals = start
            while equals < end, bytes[equals] != UInt8(ascii: "=") { equals += 1 }
            if equals < end, self.equals(bytes, start..<equals, ignoringCase: false) { return (equals + 1)..<end }
            start = end + 1
        }
        return nil
    }
}

/// How a worker limits.
enum LimiterSetup: Sendable {
    case none
    case memory(TokenBucketStore)
    case redis(LimiterContext, RedisTopology, Resolver)
}

final class NodeContext: Sendable {
    let id: String
    let workerCount: Int
    let services: [Service]
    let routes: RouteTable
    let limits: Configuration.Limits
    let headLimits: HeadLimits
    /// How slowly a client may send bodies.
    let bodyFloor: PaceFloor?
    /// How slowly it may read; what each connection's own begins as.
    let readingPace: ReadingPace
    let via: [UInt8]
    let trusted: TrustedProxies
    let believedHeader: Configuration.ForwardedHeader
    let proxyProtocol: Bool
    let connections: ConnectionLimits
    /// The process's limit, as it was at the start.
    let descriptors: Int
    let accessLogSink: LogSink?
    let accessLayout: AccessLayout
    /// `nil` where spans go nowhere.
    let spanExporter: SpanExporter?
    /// `nil` where requests carry no marks.
    let marking: Marking?
    /// The same, as a word that costs no reference.
    let marks: Bool
    /// By the numbers of the policies.
    let policyNames: [[UInt8]]
    let limiterSetup: LimiterSetup
    /// `nil` where nobody is asked who they are.
    let authentication: Authentication?
    /// The same, as a word that costs no reference.
    let authenticates: Bool
    let rateLimitFields: RateLimitFields?
    /// `nil` where the seed's form is all there is: one policy for everyone, of which only the refused hear.
    let policyTable: PolicyTable?
    /// Whether admitted requests are told of their limits too.
    let tellsLimits: Bool
    /// Whether by `X-RateLimit-*` too.
    let tellsLegacyLimits: Bool
    let drain: Configuration.Drain
    let traffic: TrafficRegistry
    let memory: MemoryBoard
    /// Whom limits refuse; a table a worker.
    let refused: [RefusedTable]

    var accessLog: Bool { accessLogSink != nil }

    init(
        _ configuration: Configuration, id: String, workerCount: Int, descriptors: Int, accessLogSink: LogSink?,
        limiterSetup: LimiterSetup, policies: [Policy], authentication: Authentication? = nil,
        spanExporter: SpanExporter? = nil, before: NodeContext? = nil
    ) {
        self.authentication = authentication
        authenticates = authentication != nil
        // What was counted goes on, also of services that are gone: a counter never falls.
        let traffic = before?.traffic ?? TrafficRegistry(workers: workerCount)
        self.traffic = traffic
        memory = before?.memory ?? MemoryBoard(workers: max(1, workerCount))
        refused = (0..<max(1, workerCount)).map { _ in RefusedTable() }
        self.id = id
        self.workerCount = workerCount
        self.accessLogSink = accessLogSink
        self.limiterSetup = limiterSetup
        let gateway = configuration.gateway
        limits = gateway.limits
        bodyFloor = PaceFloor(limits.minBodyRate, grace: limits.rateGrace)
        readingPace = ReadingPace(
            silence: limits.bodyTimeout, floor: PaceFloor(limits.minReadRate, grace: limits.rateGrace))
        headLimits = HeadLimits(
            requestLineBytes: limits.requestLineBytes?.bytes ?? 0, headerBytes: limits.headerBytes?.bytes ?? 0,
            headerCount: limits.headerCount ?? 0)
        let old = Dictionary(before?.services.map { ($0.settings.name, $0) } ?? []) { first, _ in first }
        services = configuration.services.map { settings in
            guard let service = old[settings.name] else { return Service(settings, traffic: traffic) }
            return service.settings == settings ? service : Service(settings, traffic: traffic, before: service)
        }
        routes = RouteTable(prefixes: services.map(\.prefix))
        via = Array(gateway.via.utf8)
        trusted = TrustedProxies(gateway.trustedProxies)
        believedHeader = gateway.forwardedHeader
        proxyProtocol = gateway.proxyProtocol
        self.descriptors = descriptors
        connections =
            before?.connections
            ?? ConnectionLimits(
                total: limits.connections, perClient: limits.connectionsPerClient, descriptors: descriptors)
        self.spanExporter = spanExporter
        accessLayout = AccessLayout(gateway, node: id)
        marking = Marking(
            id: gateway.requestID, traces: configuration.tracing, noted: accessLogSink == nil ? [] : accessLayout.noted)
        marks = marking != nil
        policyNames = policies.map { Array($0.name.utf8) }
        drain = gateway.drain
        rateLimitFields =
            policies.isEmpty
            ? nil
            : RateLimitFields(
                policies, legacy: configuration.rateLimit?.legacyHeaders ?? false)
        tellsLimits = configuration.rateLimit?.headers == .all && !policies.isEmpty
        tellsLegacyLimits = rateLimitFields?.isLegacy ?? false
        if let limit = configuration.rateLimit, !policies.isEmpty,
            !limit.policies.isEmpty || limit.headers == .all || limit.legacyHeaders
        {
            let everything = Configuration.PolicyScope(services: [], paths: [])
            let scopes = (limit.requestsPerSecond == nil ? [] : [everything]) + limit.flattened.map(\.policy.scope)
            let single = limit.requestsPerSecond == nil ? [] : [Configuration.PolicyCost()]
            let costs = single + limit.flattened.map(\.policy.cost)
            policyTable = PolicyTable(
                policies, scopes: scopes, costs: costs, services: configuration.services.map(\.name),
                tiers: limit.tierNames)
        } else {
            policyTable = nil
        }
    }

    /// A worker's own limiter over Redis; `nil` where limits are in memory, or there are none.
    func makeLimiter(_ loop: Loop, _ worker: Int, _ report: @escaping (LimiterEvent) -> Void) -> Limiter? {
        switch limiterSetup {
        case .none, .memory: nil
        case .redis(let context, let topology, let resolver):
            Limiter(
                context, topology: topology, worker: worker, loop: loop, resolver: resolver,
                name: "sluice-\(id)-\(worker)", report: report)
        }
    }
}
