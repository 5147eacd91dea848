// What a worker does when places for connections, or descriptors, run out: it leaves new clients in the kernel's queue
// for a moment, closes connections on which nobody waits for anything, and says so. Nothing spins: a listener that has
// paused is asked again after 50 ms, or when a connection has closed.
//
// Idle connections go first, the one that has been idle longest before the others. Where none is idle, those go that
// have been bringing their first byte or their head for a while: under attack they are the attack.
//
// A few descriptors are held in reserve for the requests in hand, which still need one each for their backend: accepting
// goes on only when the reserve is whole again.

import EventLoop
import LinuxIO
import Primitives
import Synchronization

/// What can run out.
enum Scarcity: Sendable {
    /// Places among the clients' connections.
    case places
    case descriptors
}

final class Pressure {
    private unowned let worker: Worker
    private var pressed = false
    private var lastFelt = MonotonicTime(nanoseconds: 0)
    private var calmTimer: LoopTimer?
    private let headerNotes: RepeatedNote
    private let clientNotes: RepeatedNote

    private let sparesWanted: Int
    private var spares: [SpareDescriptor] = []

    init(_ worker: Worker) {
        self.worker = worker
        headerNotes = RepeatedNote("connections were refused for their PROXY header", worker)
        clientNotes = RepeatedNote("clients are over their limit on connections", worker)
        sparesWanted = min(
            DataPathLimits.sparesMax, worker.node.descriptors / DataPathLimits.sparesShare / max(1, worker.count))
        _ = refillSpares()
    }

    // MARK: What is asked for

    /// A place for one more client; `false` where there is none, so that clients wait in the kernel's queue.
    func takePlace(certain: Bool) -> Bool {
        if spares.count < sparesWanted, !refillSpares() {
            guard certain else { return false }
            descriptorsRanOut("too many open files")
            guard refillSpares() else { return false }
        }
        let connections = worker.node.connections
        if connections.reserve() { return true }
        guard certain else { return false }
        felt("the limit on connections is reached")
        shedClients()
        if connections.reserve() { return true }
        askOthers(for: .places)
        return false
    }

    func acceptFailed(_ error: SystemError) {
        guard error.isOutOfDescriptors else {
            felt(error.reason)
            return
        }
        descriptorsRanOut(error.reason)
    }

    /// A request in hand finds no descriptor for its backend: one is freed where that is possible.
    func freeDescriptor(_ reason: String) {
        descriptorsRanOut(reason)
        _ = spares.popLast()
    }

    /// Returns whether the reserve is whole.
    private func refillSpares() -> Bool {
        while spares.count < sparesWanted {
            guard let spare = SpareDescriptor() else { return false }
            spares.append(spare)
        }
        return true
    }

    /// The process or the system has no descriptor left.
    func descriptorsRanOut(_ reason: String) {
        felt(reason)
        makeRoom(of: .descriptors)
        askOthers(for: .descriptors)
    }

    /// Closes what nobody waits for.
    func makeRoom(of scarcity: Scarcity) {
        switch scarcity {
        case .places: break
        // Idle connections to backends cost a new one each at the worst.
        case .descriptors: for pool in worker.pools.joined() { pool.closeIdle() }
        }
        shedClients()
    }

    private func askOthers(for scarcity: Scarcity) {
        if worker.count > 1 { worker.control.post(.makeRoom(worker: worker.index, scarcity)) }
    }

    /// A place is free again: whoever waits in the kernel's queue may have it.
    func connectionClosed() {
        guard pressed else { return }
        for listener in worker.listeners { listener.resumeAccepting() }
    }

    // MARK: Shedding

    private func shedClients() {
        let wanted = min(DataPathLimits.shedMax, max(1, worker.clients.count / DataPathLimits.shedShare))
        var chosen = oldest(wanted) { $0.isIdle }
        if chosen.isEmpty {
            let bound = worker.loop.now - DataPathLimits.slowHeadTime
            chosen = oldest(wanted) { $0.bringsRequest && $0.quietSince <= bound }
        }
        guard !chosen.isEmpty else { return }
        worker.node.connections.shed.add(chosen.count, ordering: .relaxed)
        for client in chosen { client.close() }
    }

    private func oldest(_ count: Int, _ isWanted: (ClientConnection) -> Bool) -> [ClientConnection] {
        var chosen = worker.clients.filter(isWanted)
        guard chosen.count > count else { return chosen }
        chosen.sort { $0.quietSince < $1.quietSince }
        return Array(chosen[..<count])
    }

    // MARK: Reporting

    private func felt(_ reason: String) {
        lastFelt = worker.loop.now
        guard !pressed else { return }
        pressed = true
        worker.node.connections.pressedWorkers.add(1, ordering: .relaxed)
        worker.control.post(.connectionsScarce(worker: worker.index, reason: reason))
        let timer = calmTimer ?? LoopTimer(worker.loop) { [weak self] in self?.lookForCalm() }
        calmTimer = timer
        timer.schedule(after: DataPathLimits.calmTime)
    }

    private func lookForCalm() {
        let calm = lastFelt + DataPathLimits.calmTime
        guard worker.loop.now >= calm else {
            calmTimer?.schedule(at: calm)
            return
        }
        pressed = false
        worker.node.connections.pressedWorkers.subtract(1, ordering: .relaxed)
        worker.control.post(.connectionsSuffice(worker: worker.index))
    }

    /// A client had its share of connections.
    func refused(_ client: IPAddress) {
        worker.node.connections.refused.add(1, ordering: .relaxed)
        clientNotes.happened(["client": client.description])
    }

    /// A trusted peer's connection began otherwise than the operator says.
    func refusedProxyHeader(of peer: IPAddress, _ reason: String) {
        worker.node.connections.refusedHeaders.add(1, ordering: .relaxed)
        headerNotes.happened(["peer": peer.description, "reason": reason])
    }
}
