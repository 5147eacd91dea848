// How a worker ends its connections without losing what anybody has been promised.
//
// Connections that were made in the kernel are taken and served. Requests that arrive are answered, and each answer says
// that it is the last of its connection (`Connection: close`). A connection that is idle is closed, but not at once: one
// that was used a moment ago is likely to be used again now, and closing over a request on its way would lose it. One that
// has never brought a byte is idle since it was made.

import Configuration
import EventLoop
import Primitives

/// What a worker that drains remembers.
final class WorkerDrain {
    /// Listeners that still take what waits for them.
    var listeners = 0
    let idleGrace: TimeSpan
    var timer: LoopTimer?

    /// A connection that nobody has used for so long is closed. Clients that send requests one after the other are told
    /// by an answer; the others lose a connection that they do not use.
    private static let idleGraceMax = TimeSpan.seconds(1)
    /// How often the idle are looked for.
    static let interval = TimeSpan.milliseconds(100)

    init(within timeout: TimeSpan) { idleGrace = min(Self.idleGraceMax, timeout / 4) }
}

extension Worker {
    func drain(handingOver: Bool) {
        guard !draining else { return }
        draining = true
        let ending = WorkerDrain(within: node.drain.timeout)
        self.ending = ending
        let leaving = listeners
        listeners.removeAll()
        ending.listeners = handingOver ? 0 : leaving.count
        for listener in leaving {
            if handingOver {
                listener.leave(takingWaiting: true)
            } else {
                listener.drain { [weak self, ending] in
                    ending.listeners -= 1
                    self?.finishDraining()
                }
            }
        }
        for pool in pools.joined() { pool.closeIdle() }
        drainTunnels()
        ending.timer = LoopTimer(loop) { [weak self] in self?.closeIdleClients() }
        closeIdleClients()
        finishDraining()
    }

    private func closeIdleClients() {
        guard let ending else { return }
        let unused = clients.filter { $0.isIdle || $0.isSilent }
        for client in unused where loop.now - client.quietSince >= ending.idleGrace { client.close() }
        ending.timer?.schedule(after: WorkerDrain.interval)
    }

    func drainTunnels() { tunnels.drain(within: node.drain.timeout, at: loop.now) }

    func finishDraining() {
        guard draining, clients.isEmpty, ending?.listeners == 0 else { return }
        control.post(.drained(worker: index))
    }

    /// Ends what is still under way, each request with its line; returns how many there were.
    func cutOff() -> Int {
        isCuttingOff = true
        let left = clients.filter(\.isUnderWay)
        tunnels.cutOff()
        for client in left { client.cutOff() }
        return left.count
    }
}

extension ClientConnection {
    /// Whether a request has come whose answer has not left this node, or a tunnel is open.
    fileprivate var isUnderWay: Bool {
        switch phase {
        case .identifying, .deciding, .waiting, .exchanging, .tunneling: true
        case .head, .discarding, .lingering, .closed: false
        }
    }

    /// The node ends. Who has got nothing yet hears why; half an answer ends in a reset, so that nobody takes it for the
    /// whole.
    fileprivate func cutOff() {
        switch phase {
        case .identifying, .deciding, .waiting: refuse(.nodeEnds(isSent: false), keepAlive: false)
        case .exchanging: refuseOrAbort(.nodeEnds(isSent: backend?.isConnected ?? false))
        case .head, .tunneling, .discarding, .lingering, .closed: break
        }
    }
}
