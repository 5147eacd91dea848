// A node put together: configuration, sockets, threads.

import Balancing
package import Configuration
import Credentials
import EventLoop
package import LinuxIO
package import Logging
package import Membership
import Primitives
package import RateLimiting
import RedisClient
package import Supervision
import Synchronization

/// Why a node cannot start.
package struct NodeStartError: Error, CustomStringConvertible {
    package let description: String
}

/// What the control loop is made from.
struct ControlSetup: Sendable {
    var id: NodeID
    var info: NodeInfo
    var listening: SocketAddress
    var resolver: Resolver
    var logger: Logger
    var eventLog: EventLog?
    var failures: RedisFailureCounts
    var board: ConfigurationBoard
    var configurationPath: String?
    var events: EventFeed
    var seed: UInt64
}

package final class Node: Sendable {
    let basis: Generation.Basis
    /// The configuration that the process was started with.
    let basisConfiguration: Configuration
    /// The one in force.
    let current: Mutex<Generation>
    /// Where it is read from again; `nil` for a node that keeps what it has.
    let source: ConfigurationSource?
    /// The file that it was started with.
    private let text: String
    /// The text of the file as it was when it was last of use.
    let fileText: Mutex<String>
    package let board = ConfigurationBoard()
    /// What it says is in the feed of events too.
    package let logger: Logger
    private let setup: ControlSetup
    /// In use, by worker.
    let listeners: Mutex<[[ListeningSocket]]>
    /// Where another process of this node has listened, and this one does not.
    private let rest: Mutex<[ListeningSocket]>
    /// The admin listener's.
    let admin: Mutex<ListeningSocket?>
    /// Whether the process before this one may answer there as long as this one does not serve.
    private let adminIsShared: Bool
    /// Who is told when a reload has ended, one way or the other.
    let whenReloaded = Callback()
    let controlMailbox: Mailbox<ControlMessage>
    private let controlWaker: Waker
    private let workerWakers: [Waker]
    private let workerMailboxes: [Mailbox<WorkerMessage>]
    private let threads = Mutex<[OSThread]>([])
    /// What looks at credentials, and its thread.
    private let credentials = Mutex<(service: CredentialService, thread: OSThread)?>(nil)
    /// What sends spans, and its thread.
    private let spans = Mutex<(exporter: SpanExporter, thread: OSThread)?>(nil)
    private let failures = Mutex<[String]>([])
    private let started = Waiter()

    /// Below this a busy node soon runs out of descriptors.
    private static let descriptorsComfortable = 4096

    /// Opens all sockets and asks for all names; no traffic yet.
    ///
    /// - Parameters:
    ///   - source: where a reload reads the configuration again.
    ///   - text: what the file holds.
    ///   - standsInFor: what is wrong with the file, where the text is another one.
    ///   - followed: the version of the cluster's that the configuration is, where it is not the file's.
    ///   - eventLog: what follows the configuration in how it looks.
    ///   - inherited: sockets that another process of this node listens on, or has.
    package init(
        _ configuration: Configuration, id: NodeID, logger: Logger, source: ConfigurationSource? = nil,
        text: String = "", standsInFor problems: [String] = [], followed: Followed? = nil, eventLog: EventLog? = nil,
        inherited: InheritedSockets = .none
    ) throws(NodeStartError) {
        let gateway = configuration.gateway
        let descriptors = DescriptorLimit.raiseToHard()
        let workerCount: Int
        switch gateway.workers {
        case .auto: workerCount = Processors.available
        case .count(let count): workerCount = count
        }
        let events = EventFeed()
        var logger = logger
        logger.handler = EventTap(logger.handler, events)
        self.source = source
        self.text = text
        fileText = Mutex(text)
        self.logger = logger
        basisConfiguration = configuration
        basis = Generation.Basis(
            id: id.text, boot: SystemClock.random64(), workerCount: workerCount, descriptors: descriptors.soft,
            resolver: Resolver(),
            failures: RedisFailureCounts(), losses: LogLosses(), spans: SpanCounts())
        let generation = try Generation(configuration, basis, text: followed?.text ?? text, followed: followed)
        current = Mutex(generation)
        let sockets = try Self.listen(
            gateway.port, workers: workerCount, key: "gateway.port", inherited: inherited, role: .gateway)
        listeners = Mutex(sockets)
        var admin: ListeningSocket?
        adminIsShared =
            gateway.admin.map { wanted in inherited.contains { wanted.port == 0 || wanted.overlaps($0) } } ?? false
        if let address = gateway.admin {
            admin = try Self.listen(
                address, workers: 1, key: "gateway.admin", inherited: inherited, role: .admin)[0][0]
        }
        self.admin = Mutex(admin)
        rest = Mutex(inherited.takeRest().filter { $0.role == .gateway }.map(\.socket))
        do throws(SystemError) {
            controlWaker = try Waker()
            var wakers: [Waker] = []
            for _ in 0..<workerCount { wakers.append(try Waker()) }
            workerWakers = wakers
        } catch {
            throw NodeStartError(description: error.description)
        }
        controlMailbox = Mailbox(waker: controlWaker)
        workerMailboxes = workerWakers.map { Mailbox(waker: $0) }
        let address = sockets[0][0].address
        setup = ControlSetup(
            id: id,
            info: NodeInfo(
                address: address.announced(), boot: BootID(basis.boot), heartbeat: gateway.heartbeat),
            listening: address, resolver: basis.resolver, logger: logger, eventLog: eventLog,
            failures: basis.failures, board: board,
            configurationPath: source?.path, events: events, seed: SystemClock.random64())
        board.update { status in
            status.loadedAt = SystemClock.wallMicroseconds()
            status.hash = generation.hash
            status.source = source?.path ?? ""
            guard !problems.isEmpty else { return }
            status.lastError = ConfigurationStatus.Failure(
                at: status.loadedAt, reason: .start, errors: problems, ticket: 0)
        }
        if !problems.isEmpty {
            for problem in problems { logger.error("\(problem)") }
            logger.warning(
                "the configuration file is of no use: this process goes by the one that was in force",
                metadata: ["errors": "\(problems.count)"])
        }
        eventLog?.listen { [controlMailbox] message, details in controlMailbox.post(.note(message, details)) }
        resolveBackends(of: generation, logger, patience: Self.namePatience)
        announce(generation, descriptors, logger)
    }

    // MARK: Parts

    /// The seed's form first, then the others as they stand in the file: their numbers.
    package static func policies(_ limit: Configuration.RateLimit) -> [Policy] {
        var policies: [Policy] = []
        if let rate = limit.requestsPerSecond {
            policies.append(
                Policy(name: "default", limit: rate, window: .seconds(1), burst: limit.burstSize ?? rate))
        }
        for entry in limit.flattened {
            let policy = entry.policy
            let mode: PolicyMode =
                switch policy.mode {
                case .enforce: .enforce
                case .shadow: .shadow
                }
            policies.append(
                Policy(
                    name: policy.name, limit: entry.limit, window: policy.window, burst: entry.limit,
                    key: PolicyKey(policy.key), mode: mode, form: form(of: policy), costMax: policy.cost.most,
                    isLocalFirst: policy.localFirst,
                    tier: entry.tier?.tier))
        }
        return policies
    }

    private static func form(of policy: Configuration.Policy) -> PolicyForm {
        if policy.concurrent { return .leases }
        return switch policy.precision {
        case .exact: .window
        case .buckets: .buckets
        }
    }

    static func lossRule(_ rule: Configuration.RedisLossRule) -> LossRule {
        switch rule {
        case .share: .share
        case .open: .open
        case .closed: .closed
        }
    }

    static func openDecisionLog(
        _ path: String?, _ policies: [Policy], _ services: [String]
    ) throws(NodeStartError) -> DecisionLog? {
        guard let path else { return nil }
        do throws(SystemError) {
            let sink = LogSink(
                try OutputFile.append(path: path), path: path, name: "the decision log", thread: "decision-log")
            return DecisionLog(sink, policies, services)
        } catch {
            throw NodeStartError(
                description: "rateLimit.decisionLog: \(error.reason): give a path that can be written")
        }
    }

    static func openAccessLog(
        _ target: Configuration.AccessLog, _ losses: LogLosses
    ) throws(NodeStartError) -> LogSink? {
        do throws(SystemError) {
            switch target {
            case .off: return nil
            case .standardOutput: return LogSink(try OutputFile.standardOutput(), losses: losses)
            case .file(let path): return LogSink(try OutputFile.append(path: path), path: path, losses: losses)
            }
        } catch {
            throw NodeStartError(
                description: "gateway.accessLog: \(error.reason): give a path that can be written, or false")
        }
    }

    private func announce(_ generation: Generation, _ descriptors: DescriptorLimit, _ logger: Logger) {
        let (configuration, context) = (generation.configuration, generation.context)
        for warning in Self.warnings(configuration) { logger.warning("\(warning)") }
        logger.notice(
            "starting",
            metadata: [
                "node": "\(setup.id)", "address": "\(address)",
                "admin": "\(admin.withLock { $0?.address.description } ?? "off")", "workers": "\(context.workerCount)",
                "redis": "\(configuration.rateLimit?.redisURL.map { $0.description } ?? "none, limits in memory")",
                "services": "\(context.services.count)", "descriptors": "\(descriptors.soft)",
                "connections": "\(context.connections.openMax)",
            ])
        if descriptors.soft < Self.descriptorsComfortable {
            logger.warning(
                "few file descriptors: raise the hard limit (ulimit -n, LimitNOFILE)",
                metadata: ["limit": "\(descriptors.soft)"])
        }
    }

    /// Keys that are valid and have no effect yet.
    package static func warnings(_ configuration: Configuration) -> [String] {
        configuration.services.flatMap { service -> [String] in
            var warnings: [String] = []
            if service.leastConnections.scope == .cluster {
                if service.strategy != .leastConnections {
                    warnings.append(
                        "\(service.name): leastConnections has no effect: write strategy: least_connections")
                } else if configuration.rateLimit?.redisURL == nil {
                    warnings.append(
                        "\(service.name): leastConnections.scope: cluster counts this node's requests only without Redis"
                    )
                }
            }
            let weights = Set(service.instances.map(\.weight))
            if service.strategy == .roundRobin, weights.count > 1 {
                warnings.append("\(service.name): weights have no effect with round_robin: write weighted_round_robin")
            }
            if service.hashOn == .user, service.strategy == .consistentHash, configuration.mode(of: service) == .none {
                warnings.append(
                    "\(service.name): hashOn: user goes by the client's address: callers are not asked who they are (auth)"
                )
            }
            return warnings
        }
    }

    /// What the configuration in force says of the node itself.
    package var gateway: Configuration.Gateway { current.withLock { $0.configuration.gateway } }
    /// A file that said this would be of use.
    package var usefulText: String { fileText.withLock { $0 } }

    package var address: String { listeners.withLock { $0[0][0].address.description } }

    /// What it listens on, for another process to listen on too.
    package var sockets: [(role: SocketRole, raw: Int32)] {
        let gateway = listeners.withLock { $0.joined().map { (role: SocketRole.gateway, raw: $0.descriptor.raw) } }
        let admin = admin.withLock { $0.map { [(role: SocketRole.admin, raw: $0.descriptor.raw)] } ?? [] }
        // Those that were left to another process are none.
        return (gateway + admin).filter { $0.raw >= 0 }
    }

    // MARK: Running

    /// Starts all threads; returns when every worker listens. `admin` runs on the control loop's thread.
    package func start(
        admin startAdmin: @escaping @Sendable (Control, ListeningSocket) throws -> () -> Void
    ) throws(NodeStartError) {
        let control = OSThread(name: "control") { [self] in runControl(startAdmin) }
        var all = [control]
        for index in 0..<basis.workerCount {
            all.append(OSThread(name: "worker-\(index)") { [self] in runWorker(index) })
        }
        threads.withLock { $0 = all }
        startCredentials(of: current.withLock { $0 })
        _ = startSpans(of: current.withLock { $0 })
        for _ in all { started.wait() }
        if let failure = failures.withLock({ $0.first }) {
            controlMailbox.post(.stop)
            throw NodeStartError(description: failure)
        }
        let begun = Waiter()
        let late = adminIsShared ? admin.withLock { $0 } : nil
        controlMailbox.post(.serving(admin: late, then: { begun.signal() }))
        begun.wait()
        startReloading(from: text)
    }

    private func failed(_ error: any Error) {
        failures.withLock { $0.append("\(error)") }
        started.signal()
    }

    private func runControl(_ startAdmin: @escaping @Sendable (Control, ListeningSocket) throws -> () -> Void) {
        do {
            let loop = try Loop(waker: controlWaker)
            let control = Control(
                current.withLock { $0 }, setup: setup, loop: loop, mailbox: controlMailbox, workers: workerMailboxes)
            control.adminStart = startAdmin
            if !adminIsShared, let socket = admin.withLock({ $0 }) {
                control.adminEnd = try startAdmin(control, socket)
            }
            started.signal()
            loop.run()
            control.whenStopped?()
        } catch {
            failed(error)
        }
    }

    private func runWorker(_ index: Int) {
        do {
            let loop = try Loop(waker: workerWakers[index])
            let context = current.withLock { $0 }.context
            let worker = Worker(
                node: context, index: index, loop: loop, mailbox: workerMailboxes[index], control: controlMailbox,
                balancers: context.services.map { $0.balancer { _ in true } })
            var hasBegun = false
            worker.begin(on: listeners.withLock { $0[index] }) { [self] error in
                hasBegun = true
                if let error {
                    failed(error)
                    loop.stop()
                } else {
                    started.signal()
                }
            }
            loop.run()
            // It was stopped before.
            if !hasBegun { started.signal() }
        } catch {
            failed(error)
        }
    }

    /// Asks for an orderly end; `wait` returns when it has come.
    package func drain() { controlMailbox.post(.drain) }

    /// Opens the files of logs anew: somebody has renamed them.
    package func reopenLogs() {
        let generation = current.withLock { $0 }
        generation.context.accessLogSink?.reopen()
        Generation.decisions(of: generation.limiterContext)?.reopen()
    }

    /// For a moment another process of this node has its name too, which is no mistake.
    package func changeHands() { controlMailbox.post(.changeHands) }

    /// Serves those who wait where the process before this one has listened, and closes that. Not before this one serves:
    /// until then that one may have to go on.
    package func endFormerListeners() {
        let former = rest.withLock { rest in
            defer { rest = [] }
            return rest
        }
        if !former.isEmpty { workerMailboxes[0].post(.endListening(former)) }
    }

    /// Leaves everything that is new to a process that listens on the same sockets under the same name.
    package func handOver() { controlMailbox.post(.handOver) }

    /// It is known what became of the wish for another process in this one's place.
    package func tellUpgraded() { controlMailbox.post(.upgradeAnswered) }

    /// Ends at once, or, where it drains, without waiting for anybody.
    package func stop() { controlMailbox.post(.stop) }

    /// Starts what looks at credentials in a configuration, unless it runs already, and ends what did before.
    func startCredentials(of generation: Generation?) {
        let wanted = generation?.context.authentication?.service
        let ended = credentials.withLock { running in
            if let running, running.service === wanted { return nil as OSThread? }
            running?.service.stop()
            let thread = running?.thread
            running = wanted.map { ($0, $0.start(CredentialLine(workerMailboxes, controlMailbox))) }
            return thread
        }
        ended?.join()
    }

    /// Starts what sends spans in a configuration, unless it runs already, and stops what did before, whose thread ends
    /// when it has sent what it has, soon.
    func startSpans(of generation: Generation?) -> OSThread? {
        let wanted = generation?.context.spanExporter
        return spans.withLock { running in
            if let running, running.exporter === wanted { return nil }
            running?.exporter.stop()
            let thread = running?.thread
            running = wanted.map { exporter in
                (exporter, exporter.start { [controlMailbox] in controlMailbox.post(.note($0, $1)) })
            }
            return thread
        }
    }

    package func wait() {
        for thread in threads.withLock({ $0 }) { thread.join() }
        let last = current.withLock { $0 }
        // Nobody is left to ask.
        startCredentials(of: nil)
        startSpans(of: nil)?.join()
        last.context.accessLogSink?.close()
        Generation.decisions(of: last.limiterContext)?.close()
    }
}
