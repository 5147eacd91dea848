// The control loop's part in a reload: health, breakers and the line to the cluster go on with the new configuration, then
// the workers are told, and when all go by it, what only the old one used is closed.

import Balancing
import Configuration
import EventLoop
import Health
import LinuxIO
import Logging
package import Membership
import Primitives
import RateLimiting
import RedisClient

extension Control {
    /// Whether there is a file to read again.
    package var canReload: Bool { configurationPath != nil }

    /// Calls back on the loop, when the question for a reload that has this number is answered.
    package func whenAnswered(_ ticket: Int, _ tell: @escaping () -> Void) { answerWaiters.append((ticket, tell)) }

    func tellAnswered() {
        let answered = board.status.answered
        let done = answerWaiters.filter { $0.ticket <= answered }
        answerWaiters.removeAll { $0.ticket <= answered }
        for waiter in done { waiter.tell() }
    }

    /// Who is told to end serves everybody for `drain.delay` more, and not by what is no longer in force.
    private var takesConfigurations: Bool { isReady || readiness == .draining && !ending.isClosing }

    var sharesLoad: Bool { node.services.contains { $0.countsCluster } }

    /// Opens the line to the other nodes, where there is a Redis.
    func joinCluster() {
        guard let redis = generation.redis else { return }
        link = ClusterLink(
            redis, id: nodeID, info: membership.info, listening: listening, loop: loop, resolver: resolver,
            seed: seed &+ 7,
            sharesLoad: sharesLoad, owner: self)
        if sharesLoad { tellLoad() }
    }

    func begin(_ order: Succession) {
        guard takesConfigurations, succession == nil else {
            order.done(takesConfigurations ? "another reload is under way" : "the node is about to end")
            return
        }
        let before = generation
        let (old, new) = (before.configuration, order.generation.configuration)
        let sharedLoad = sharesLoad
        isBeginning = true
        generation = order.generation
        if generation.takeRenewal() {
            logger.notice("the TLS files of Redis hold something else: connections to it that are made now go by them")
        }
        let limits = new.gateway.limits
        node.connections.limit(
            total: limits.connections, perClient: limits.connectionsPerClient, descriptors: node.descriptors)
        tellLimiters()
        let isSameLink =
            old.rateLimit?.redisURL == new.rateLimit?.redisURL && sharedLoad == sharesLoad
            && old.gateway.heartbeat == new.gateway.heartbeat && order.sockets == nil
        if !isSameLink {
            let leaving = old.rateLimit?.redisURL != new.rateLimit?.redisURL
            if let address = order.sockets?[0][0].address { listening = address }
            membership.announce(
                at: order.sockets.map { _ in listening.announced() }, every: new.gateway.heartbeat)
            changeLink(leaving: leaving)
        }
        if old.services != new.services {
            health.reconfigure(node.services.map { Self.watched($0) }, at: moment, into: &actions)
            perform()
            watchBreakers()
            performBreakers()
            failureShares = FailureShares(node.services)
            lookAtShares()
        }
        if !node.limiterSetup.isSame(as: before.context.limiterSetup) {
            // From one Redis to the next nothing is known to be lost until somebody says so.
            if before.limiterContext == nil || lossRule == nil { limitersUnheard() }
            keysTold = ToldLately()
        }
        changeAdmin(order.admin)
        eventLog?.follow(new.gateway)
        watchLogs()
        watchFile()
        follow()
        let balancers = node.services.map { balancer($0) }
        let next = WorkerSuccession(node: node, balancers: balancers, sockets: order.sockets)
        succession = (order, Set(workers.indices))
        retired = before
        for worker in workers { worker.post(.reload(next)) }
        isBeginning = false
    }

    func workerReloaded(_ worker: Int) {
        guard succession?.missing.remove(worker) != nil, let (order, missing) = succession, missing.isEmpty else {
            return
        }
        succession = nil
        // Only now does no request meet the one before any more.
        announceConfiguration()
        if let before = retired { close(before) }
        retired = nil
        order.done(nil)
    }

    /// What nobody writes to any more. Writing out what is left may wait for a disk, so it has a thread.
    private func close(_ before: Generation) {
        let (sink, decisions) = before.logs(notOf: generation)
        guard sink != nil || decisions != nil else { return }
        // The old limiters may still write what they had asked.
        let patience = (before.limiterContext?.timeout ?? .zero) * 2 + .seconds(2)
        let timer = LoopTimer(loop) {
            _ = OSThread(name: "old-logs") {
                sink?.close()
                decisions?.close()
            }
        }
        closing = timer
        timer.schedule(after: decisions == nil ? .zero : patience)
    }

    private func changeLink(leaving: Bool) {
        if let link {
            link.close(leaving: leaving)
            self.link = nil
            breakersJoined(false)
            loadsLost()
            health.redisLost(at: moment, into: &actions)
            perform()
        }
        clusterFailure = nil
        clusterLossTold = ToldCauses()
        newsFailure = nil
        movesFailure = nil
        clusterState = generation.redis == nil ? .alone : .lost
        joinCluster()
    }

    /// Hears of the troubles of logs.
    func watchLogs() {
        let told: LogSink.Listener = { [mailbox] message, details in mailbox.post(.note(message, details)) }
        node.accessLogSink?.listen(told)
        Generation.decisions(of: generation.limiterContext)?.listen(told)
    }

    /// Goes by the cluster's configuration, where that is wanted.
    func follow() {
        if generation.configuration.config.from == .redis {
            if follower == nil { follower = ConfigurationFollower(self) }
        } else {
            follower?.close()
            follower = nil
        }
    }

    /// Tells the others which configuration this node goes by.
    func announceConfiguration() {
        membership.announce(
            configuration: generation.followed.map { "\($0.version)" } ?? generation.hash, follows: follower != nil)
        link?.info = membership.info
    }

    /// The living nodes that have a vote.
    var followers: [NodeID] {
        members.filter { $0.id == nodeID || $0.info?.follows ?? false }.map(\.id)
    }

    /// How the last proposal made here stands; `nil` where this node follows nobody.
    package var rollout: Rollout? { follower?.rollout }
    /// Why Redis does not let the history be read.
    package var configurationHistoryRefusal: String? { follower?.historyRefusal }
    package var configurationHistory: [ConfigurationVersion] { follower?.history ?? [] }

    /// Proposes a configuration to all nodes; `nil` while another is under way.
    package func push(_ text: String, by: String) -> Int? { follower?.push(text, by: by, note: "") }
    package func rollBack(to number: Int, by: String) -> Int? { follower?.rollBack(to: number, by: by) }

    func configurationTold(_ message: String) { follower?.told(message) }

    /// Looks at the file now and then, where that is wanted.
    func watchFile() {
        guard generation.configuration.gateway.watchConfig, let path = configurationPath else {
            watch?.close()
            watch = nil
            return
        }
        if watch == nil { watch = FileWatch(path, loop: loop) { [board] in board.ask(.file) } }
    }

    private func changeAdmin(_ change: Succession.AdminSuccession) {
        switch change {
        case .unchanged: return
        case .off: endAdmin()
        case .socket(let socket):
            endAdmin()
            startAdmin(on: socket)
        }
    }

    func startAdmin(on socket: ListeningSocket) {
        do {
            adminEnd = try adminStart?(self, socket)
        } catch {
            logger.error("the admin listener cannot start", metadata: ["reason": "\(error)"])
        }
    }

    private func endAdmin() {
        adminEnd?()
        adminEnd = nil
    }
}
