// On a Redis Cluster a subject's window can move to another server, and each server has a machine of its own: with a
// clock, a breaker and memories that belong to that server alone. What was on its way to the wrong one is handed over.
//
// A redirection means that nothing was executed: the server refuses the commands of a transaction one by one, and then
// the whole. So what is handed over cannot count twice.

package import Identity
package import Primitives
import RedisClient

/// What one machine hands to another.
package struct Handover {
    struct Asked {
        /// `nil` for a part of a request that another decides as a whole.
        var requester: (any LimitRequester)?
        var token: UInt64
        var deadline: MonotonicTime
        var cost: UInt16 = 1
    }
    /// Whose requests these are; the entries may be of several.
    package var subject: SubjectKey
    var requests: [Asked] = []
    var entries: [WindowMachine.Entries] = []
}

extension WindowMachine {
    /// Whose transmission this is; `nil` for a probe.
    package func subject(of transmission: Transmission) -> SubjectKey? {
        switch flights[Int(transmission.token)] {
        case .window(let flight), .confirmation(let flight, _, _): flight.transaction.subject
        case .entries(let run): run.subject
        case .cleanup(let subject, _), .sweep(let subject, _, _), .carrying(let subject): subject
        case .probe: nil
        }
    }

    /// The server said that another one holds the subject of this transmission. `nil` where nothing is left to do.
    package mutating func redirected(_ token: UInt64, at now: MonotonicTime) -> Handover? {
        guard let flight = flights.remove(Int(clamping: token)) else { return nil }
        lastHeardAt = now
        // A server that knows of others lives.
        breaker.answered()
        switch flight {
        case .window(let flight):
            let handover = handOver(flight, admitted: 0, at: now)
            landed(flight.transaction.subject, at: now)
            return handover
        case .confirmation(let flight, let admitted, _):
            // The entries have moved with their key. Nobody may be admitted by them before they have their time: they
            // are taken out where they are now, and the requests decided there.
            return handOver(flight, admitted: admitted, at: now)
        case .entries(let run):
            entriesUnderWay -= 1
            return Handover(subject: run.subject, entries: [run])
        case .cleanup, .sweep, .carrying: return nil
        case .probe:
            probeUnderWay = false
            return nil
        }
    }

    /// - Parameter admitted: entries that are in the window.
    private mutating func handOver(_ flight: WindowFlight, admitted: Int, at now: MonotonicTime) -> Handover {
        var handover = Handover(subject: flight.transaction.subject)
        let kept = entries
        entries = Queue()
        var position = 0
        var index = flight.firstRequest
        while index >= 0, let request = requests.remove(Int(index)) {
            switch request.state {
            case .waiting:
                giveBack(flight, position, min(Int(request.cost), admitted - position), at: now)
                if request.part >= 0 { _ = parts.remove(Int(request.part)) }
                handover.requests.append(
                    Handover.Asked(
                        requester: requesters.remove(Int(request.requester)), token: request.token,
                        deadline: request.deadline, cost: request.cost))
            case .admittedByLossRule: charge(flight, position, request)
            case .refusedByLossRule: giveBack(flight, position, min(Int(request.cost), admitted - position), at: now)
            }
            index = request.next
            position += Int(request.cost)
        }
        while let run = entries.popFirst() { handover.entries.append(run) }
        entries = kept
        return handover
    }

    /// Takes over from another machine. Nobody waits longer for that than they would have.
    package mutating func take(_ handover: Handover, at now: MonotonicTime) {
        // Where a replica has taken over, it may not have a count that was reserved in, or somebody has begun it anew.
        for run in handover.entries where !isReservation(run) { putRight(run) }
        for asked in handover.requests { askAgain(handover.subject, asked, at: now) }
    }

    private mutating func askAgain(_ subject: SubjectKey, _ asked: Handover.Asked, at now: MonotonicTime) {
        if let requester = asked.requester {
            switch ask(subject, requester, token: asked.token, at: now) {
            case .decided(let verdict):
                deliver(verdict, requester, token: asked.token)
            case .pending: advanceLast(to: asked.deadline)
            }
        } else {
            switch ask(part: subject, cost: asked.cost, token: asked.token, at: now) {
            case .decided(let answer): report(answer)
            case .pending: advanceLast(to: asked.deadline)
            }
        }
    }

    /// The deadline of who came last is nearer than that of those before: it must stand before them.
    private mutating func advanceLast(to deadline: MonotonicTime) {
        guard let (index, serial) = deadlines.popLast() else { return }
        requests[Int(index)].deadline = deadline
        var later: [(index: Int32, serial: UInt64)] = []
        while let last = deadlines.last, isWaiting(last.index, last.serial),
            requests[Int(last.index)].deadline > deadline, let moved = deadlines.popLast()
        {
            later.append(moved)
        }
        deadlines.append((index, serial))
        for entry in later.reversed() { deadlines.append(entry) }
    }

    /// Takes out what is remembered of subjects that belong to another server now.
    package mutating func takeMisplaced(_ isOurs: (SubjectKey) -> Bool) -> [Handover] {
        var misplaced: [Handover] = []
        takeUpReturned()
        var stay = Queue<Entries>()
        while let run = entries.popFirst() {
            if isOurs(run.subject) {
                stay.append(run)
            } else {
                misplaced.append(Handover(subject: run.subject, entries: [run]))
            }
        }
        entries = stay
        stay = Queue()
        while let run = recent.popFirst() {
            if isOurs(run.subject) {
                stay.append(run)
            } else {
                // The new server has them already if all went well, and then adding them changes nothing.
                misplaced.append(Handover(subject: run.subject, entries: [run]))
            }
        }
        recent = stay
        return misplaced
    }

    /// On a cluster: another tag has a marker of its own.
    package mutating func setProbeTag(_ tag: String) {
        probeTag = Array(tag.utf8)
        epoch = []
    }
}
