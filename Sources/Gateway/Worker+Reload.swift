// Another configuration takes the place of the one in force, between two turns of the loop: no request sees half of it.

import Balancing
import Configuration
import EventLoop
import Identity
import LinuxIO
import Primitives
import RateLimiting

/// What a worker goes by from here on. Immutable, and the same for all workers of a node.
struct WorkerSuccession: Sendable {
    let node: NodeContext
    /// By the numbers of its services.
    let balancers: [BalancerSnapshot]
    /// Sockets to listen on instead of those until now, by worker; `nil` where the address stays.
    let sockets: [[ListeningSocket]]?
}

/// A limiter that nobody asks any more, until what it was asked is answered and what it owes Redis is written.
final class RetiringLimiter {
    let limiter: Limiter
    let era: Int
    var timer: LoopTimer?

    init(_ limiter: Limiter, era: Int) {
        self.limiter = limiter
        self.era = era
    }
}

/// What a request holds while it runs: the first of its places with the limiter of an era.
struct Lease {
    var place: Int32
    var era: Int
}

/// Whether anybody wants to hear what happens to a limiter.
final class Hearing {
    var isOpen = true
}

extension LimiterSetup {
    /// Whether it is the very same: its limits, its memory and its Redis.
    func isSame(as other: LimiterSetup) -> Bool {
        switch (self, other) {
        case (.none, .none): true
        case (.memory(let a), .memory(let b)): a === b
        case (.redis(let a, _, _), .redis(let b, _, _)): a === b
        case (.none, _), (.memory, _), (.redis, _): false
        }
    }
}

/// A configuration whose limiter is on its way to Redis: until it is there, the one before goes on.
final class Upcoming {
    let next: WorkerSuccession
    let limiter: Limiter
    let hearing: Hearing
    let until: MonotonicTime
    var timer: LoopTimer?
    /// What concerns the next configuration already.
    var messages: [WorkerMessage] = []

    init(_ next: WorkerSuccession, _ limiter: Limiter, _ hearing: Hearing, until: MonotonicTime) {
        self.next = next
        self.limiter = limiter
        self.hearing = hearing
        self.until = until
    }
}

extension Worker {
    /// A Redis that takes longer to log in to is as good as lost, and the loss rule decides in the meantime.
    static let limiterPatience = TimeSpan.seconds(1)

    func reload(_ next: WorkerSuccession) {
        listenNow()
        // Requests must not fall under the loss rule only because a connection is being made.
        guard !next.node.limiterSetup.isSame(as: node.limiterSetup), limiter?.isAsking ?? true,
            let (made, hearing) = makeLimiter(next.node)
        else {
            take(next, limiter: nil)
            return
        }
        let upcoming = Upcoming(next, made, hearing, until: loop.now + Self.limiterPatience)
        upcoming.timer = LoopTimer(loop) { [weak self] in self?.lookAtUpcoming() }
        self.upcoming = upcoming
        lookAtUpcoming()
    }

    private func lookAtUpcoming() {
        guard let upcoming else { return }
        guard upcoming.limiter.isAsking || loop.now >= upcoming.until else {
            upcoming.timer?.schedule(after: .milliseconds(4))
            return
        }
        self.upcoming = nil
        take(upcoming.next, limiter: (upcoming.limiter, upcoming.hearing))
        for message in upcoming.messages { take(message) }
    }

    private func take(_ next: WorkerSuccession, limiter made: (Limiter, Hearing)?) {
        let before = node
        node = next.node
        var old = Dictionary(lanes.map { ($0.service.settings.name, $0) }) { first, _ in first }
        lanes = zip(node.services, next.balancers).map { service, balancer in
            let former = old.removeValue(forKey: service.settings.name)
            let lane = Lane(service, of: node, balancer: balancer, before: former, worker: self)
            former?.retirePools(keeping: lane)
            return lane
        }
        for lane in old.values { lane.retirePools(keeping: nil) }
        for client in clients {
            client.isOutdated = true
            // Who asks nothing must not hold what is over.
            if client.phase == .head { client.lane = nil }
        }
        if !node.limiterSetup.isSame(as: before.limiterSetup) {
            let former = retireLimiter(of: before)
            startLimiter(made)
            if let limiter { former?.handOver(to: limiter) }
        }
        if node.authentication?.service !== before.authentication?.service {
            let former = callers
            callers = makeCallers()
            former?.abandon()
        } else {
            callers?.forget(.all)
        }
        accessLog?.turnEnded()
        accessLog = AccessLog(of: self)
        spanLog?.turnEnded()
        spanLog = SpanLog(of: self)
        if !draining {
            if let sockets = next.sockets { listen(anew: sockets[index]) }
            tunnels.reloaded(node.services, at: loop.now)
            for lane in lanes { tunnels.viewChanged(lane.service, at: loop.now) { lane.balancer.isAvailable($0) } }
        }
        control.post(.reloaded(worker: index))
    }

    func makeCallers() -> Callers? {
        node.authentication.map {
            let key = DigestKey(low: SystemClock.random64(), high: SystemClock.random64())
            return Callers($0.service, worker: index, key: key)
        }
    }

    /// The old sockets give what queues on them before they close; those that are wanted on go on.
    private func listen(anew sockets: [ListeningSocket]) {
        let before = listeners
        listeners = []
        do throws(SystemError) {
            try listen(on: sockets.filter { socket in !before.contains { $0.socket === socket } })
        } catch {
            control.post(.note("a worker cannot listen on the new address and keeps the old", ["reason": error.reason]))
            for listener in listeners { listener.close() }
            listeners = before
            return
        }
        for listener in before {
            if sockets.contains(where: { $0 === listener.socket }) {
                listeners.append(listener)
            } else {
                listener.drain()
            }
        }
    }

    /// Takes who waits in sockets of the process before this one, and closes them.
    func endListening(_ sockets: [ListeningSocket]) {
        for socket in sockets {
            do throws(SystemError) {
                try loop.listen(on: socket, handler: self).drain()
            } catch {
                control.post(.note("who waits at the former address cannot be served", ["reason": error.reason]))
            }
        }
    }

    // MARK: Limits

    /// - Parameter made: one for this configuration that is there already.
    func startLimiter(_ made: (Limiter, Hearing)? = nil) {
        let new = made ?? makeLimiter(node)
        (limiter, limiterHearing) = (new?.0, new?.1)
        switch node.limiterSetup {
        case .memory(let store):
            if let before = tokenBuckets, store.continues(before), heldHere != nil {
                // The same requests run on, counted where they were.
            } else {
                limiterEra += 1
                heldHere = store.makeKeeper()
            }
            tokenBuckets = store
        case .none, .redis:
            limiterEra += 1
            (tokenBuckets, heldHere) = (nil, nil)
        }
    }

    private func makeLimiter(_ node: NodeContext) -> (Limiter, Hearing)? {
        let hearing = Hearing()
        let (control, index) = (control, index)
        let limiter = node.makeLimiter(loop, index) { event in
            if hearing.isOpen { control.post(.limiter(worker: index, event)) }
        }
        return limiter.map { ($0, hearing) }
    }

    private func retireLimiter(of before: NodeContext) -> Limiter? {
        guard let limiter, case .redis(let context, _, _) = before.limiterSetup else { return nil }
        limiterHearing?.isOpen = false
        limiterHearing = nil
        let retired = RetiringLimiter(limiter, era: limiterEra)
        // Longer than any request waits for Redis: by then it has nobody to answer.
        let pause = context.timeout * 2 + .seconds(1)
        let until = loop.now + Self.owingMax
        retired.timer = LoopTimer(loop) { [weak self, weak retired] in
            guard let self, let retired else { return }
            guard !self.isNeeded(retired, until: until) else {
                retired.timer?.schedule(after: pause)
                return
            }
            retired.limiter.close()
            self.retiring.removeAll { $0 === retired }
        }
        retired.timer?.schedule(after: pause)
        retiring.append(retired)
        return limiter
    }

    /// A limiter that has something to put right, or knows what Redis may yet forget, goes on with that for so long: no
    /// longer than what was let in lately is remembered, with some time for Redis to come back.
    private static let owingMax = TimeSpan.seconds(120)
    /// So many of them: each has a connection to Redis.
    private static let owingCountMax = 4

    private func isNeeded(_ retired: RetiringLimiter, until: MonotonicTime) -> Bool {
        // Its requests run on, and their leases are renewed.
        if retired.limiter.holdsLeases { return true }
        guard loop.now < until, retired.limiter.isOwing else { return false }
        return retiring.suffix(Self.owingCountMax).contains { $0 === retired }
    }
}
