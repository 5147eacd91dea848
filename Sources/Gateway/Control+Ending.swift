// How a node ends: in order, at once, or because another process has taken its place.
//
//   SIGTERM → readiness off → drain.delay, everything is served → out of the cluster, no new connection, every answer
//   the last of its connection → nobody is connected any more, or drain.timeout is over → exit
//
// A node that hands over begins at the third step and stays in the cluster, where its successor has its name.

import Configuration
import EventLoop
import Health
import Logging
import Primitives

/// Whether a node wants clients, in the words of `/readyz`.
package enum Readiness: String, Sendable {
    case starting
    case serving
    case draining
    /// Another process answers in its place.
    case replaced
}

/// What a control loop remembers of its own end.
struct Ending {
    /// Between the first word of the end and the last.
    var isUnderWay = false
    /// Connections are being closed.
    var isClosing = false
    var delay: LoopTimer?
    var limit: LoopTimer?
    /// Why its connections have ended, once they have.
    var reason: String?
    /// Workers that have not said that they have stopped.
    var running = 0
    /// Requests and tunnels that were under way then.
    var cutOff = 0
    var last: LoopTimer?
    /// Until then another process of this node announces itself as this one does.
    private(set) var nameSharedUntil = MonotonicTime(nanoseconds: .min)

    /// A new process that does not serve by then has failed, and an old one announces itself no more.
    static let handsTime = TimeSpan.seconds(60)

    mutating func sharesName(until time: MonotonicTime) { nameSharedUntil = time }

    /// A worker whose turn takes longer is not waited for.
    static let stopTime = TimeSpan.milliseconds(500)

    /// Ends the admin listener's accepting, where another process goes on with it.
    var leaveAdmin: (() -> Void)?

    /// Who waits to hear what became of the wish for another process.
    var upgradeWaiters: [() -> Void] = []
}

extension Control {
    /// Called when another process takes over the admin listener.
    package func whenHandingOver(_ body: @escaping () -> Void) { ending.leaveAdmin = body }

    /// Calls back on the loop, when another process has taken over, or it is known that none does.
    package func whenUpgraded(_ tell: @escaping () -> Void) { ending.upgradeWaiters.append(tell) }

    func tellUpgraded() {
        let waiters = ending.upgradeWaiters
        ending.upgradeWaiters = []
        for tell in waiters { tell() }
    }

    /// Takes the node out of service: readiness off now, connections after the drain delay.
    func drain() {
        guard !ending.isUnderWay else { return }
        ending.isUnderWay = true
        readiness = .draining
        logger.notice("draining", metadata: ["delay": "\(node.drain.delay)", "timeout": "\(node.drain.timeout)"])
        guard node.drain.delay > .zero else { return endConnections(handingOver: false) }
        let timer = LoopTimer(loop) { [weak self] in self?.endConnections(handingOver: false) }
        ending.delay = timer
        timer.schedule(after: node.drain.delay)
    }

    /// Leaves everything that is new to the process that has taken over.
    func handOver() {
        guard readiness != .replaced else { return }
        ending.isUnderWay = true
        ending.delay?.cancel()
        readiness = .replaced
        logger.notice("handing over", metadata: ["timeout": "\(node.drain.timeout)"])
        // The successor announces itself under this node's name: two would be taken for a mistake.
        link?.fallSilent()
        ending.leaveAdmin?()
        tellUpgraded()
        endConnections(handingOver: true)
    }

    private func endConnections(handingOver: Bool) {
        ending.isClosing = true
        follower?.leave()
        if !handingOver { leaveCluster() }
        for worker in workers { worker.post(.drain(handingOver: handingOver)) }
        let limit = LoopTimer(loop) { [weak self] in self?.finish("the drain timeout is over") }
        ending.limit = limit
        limit.schedule(after: node.drain.timeout)
    }

    /// From here on the others count on this node no more: not for its share of a limit, nor for a probe or a vote.
    private func leaveCluster() {
        health.leave(into: &actions)
        perform()
        link?.leave()
    }

    func workerDrained(_ worker: Int) {
        drained.insert(worker)
        if drained.count == workers.count { finish("all connections are closed") }
    }

    private func finish(_ reason: String) {
        guard ending.isUnderWay, ending.reason == nil else { return }
        ending.limit?.cancel()
        ending.delay?.cancel()
        ending.reason = reason
        if readiness != .replaced { leaveCluster() }
        ending.running = workers.count
        for worker in workers { worker.post(.stop) }
        let limit = LoopTimer(loop) { [weak self] in self?.end() }
        ending.limit = limit
        limit.schedule(after: Ending.stopTime)
    }

    func workerStopped(_ cutOff: Int) {
        ending.running -= 1
        ending.cutOff += cutOff
        if ending.running == 0 { end() }
    }

    private func end() {
        guard let reason = ending.reason, ending.last == nil else { return }
        ending.limit?.cancel()
        logger.notice("drained", metadata: ["cutOff": "\(ending.cutOff)", "reason": "\(reason)"])
        // What was written above leaves at the end of this turn; then the loop may end.
        let last = LoopTimer(loop) { [loop] in loop.stop() }
        ending.last = last
        last.schedule(after: .milliseconds(20))
    }

    /// The end of a node that has not begun to drain is immediate; one that drains waits for nobody any more.
    func stop() {
        if ending.isUnderWay, ending.reason == nil { return finish("told again") }
        for worker in workers { worker.post(.stop) }
        loop.stop()
    }
}
