// A full window of which several slots leave between two questions. One request that asks finds room for others, and as
// many transactions follow as it takes until the window is full again. So those who come in the last moment before the
// time has come wait for it in place of being refused, and go together: one transaction that finds the window full again.
// Where it does not, and somebody hammers, the next one waits for others as well.
//
// Nobody else waits for this but who would be refused otherwise. docs/decisions/gathering.md has the figures.

import Identity
package import Primitives

extension WindowMachine {
    /// Lets those of a subject who gather wait until they may ask.
    mutating func hold(_ place: Int, _ subject: SubjectKey, until time: MonotonicTime) {
        subjects[place].isAsker = true
        guard subjects[place].flights == 0, !subjects[place].isQueued else { return }
        subjects[place].isHeld = true
        subjects[place].isQueued = true
        heldCount += subjects[place].waiting
        // Few at once: each of them hammers.
        held.insert((subject, time), at: held.firstIndex { $0.until <= time } ?? held.endIndex)
    }

    /// The one who asked has found room, and the window may have more.
    func foundRoom(_ flight: WindowFlight, taken: Int, at now: MonotonicTime) {
        let subject = flight.transaction.subject
        context.fullWindows.foundRoom(
            subject, taken: taken, pace: context.paces[Int(subject.policy)], sentAt: flight.transaction.sentAt, at: now)
    }

    func isWaitingForItsTime(_ subject: SubjectKey) -> Bool {
        guard let place = subjects.find(subject) else { return false }
        return subjects[place].isHeld
    }

    /// Whether another request can wait with a subject's, or would be the first.
    func mayWaitForItsTime(_ subject: SubjectKey, at now: MonotonicTime) -> Bool {
        if let place = subjects.find(subject) {
            if subjects[place].isHeld { return !isCrowded(place, subject, at: now) }
            if subjects[place].waiting > 0 || subjects[place].flights > 0 { return false }
        }
        return context.fullWindows.isSoon(subject, at: now)
    }

    /// Whether as many wait as can have room. When the time has come, others can go along.
    private func isCrowded(_ place: Int, _ subject: SubjectKey, at now: MonotonicTime) -> Bool {
        subjects[place].waiting >= context.crowd(of: subject)
            && held.contains { $0.subject == subject && $0.until > now }
    }

    /// When to come again where nobody else may wait.
    @inline(never)
    mutating func retryAfterCrowd(
        _ place: Int, _ subject: SubjectKey, _ cost: UInt16, at now: MonotonicTime
    ) -> TimeSpan? {
        guard isCrowded(place, subject, at: now) else { return nil }
        let wholeWait = context.policies[Int(subject.policy)].wholeWait
        guard case .full(let retryAfter) = context.fullWindows.peek(subject, cost: cost, wholeWait: wholeWait, at: now)
        else { return nil }
        return retryAfter
    }

    /// When requests that wait for a window's time are due; `next` has them then.
    package var heldUntil: MonotonicTime? { held.last?.until }

    /// Lets those go with the next write whose time has come.
    package mutating func releaseHeld(at now: MonotonicTime) {
        while let (subject, until) = held.last, until <= now {
            held.removeLast()
            unhold(subject)
            askAlong(subject, at: now)
        }
    }

    /// One of those who gather has been answered.
    mutating func noLongerWaits(_ place: Int) {
        subjects[place].waiting -= 1
        if subjects[place].isHeld { heldCount = max(0, heldCount - 1) }
    }

    mutating func unhold(_ subject: SubjectKey) {
        if let place = subjects.find(subject) {
            subjects[place].isHeld = false
            heldCount = max(0, heldCount - subjects[place].waiting)
        }
        if held.isEmpty { heldCount = 0 }
        gathered.append(subject)
    }

    /// What these requests ask of other policies goes in the same write.
    private mutating func askAlong(_ subject: SubjectKey, at now: MonotonicTime) {
        guard let place = subjects.find(subject) else { return }
        var index = subjects[place].first
        while index >= 0 {
            let request = requests[Int(index)]
            if request.state == .waiting, request.part >= 0, parts[Int(request.part)].join >= 0 {
                askParts(of: parts[Int(request.part)].join, at: now)
            }
            index = request.next
        }
    }
}

extension LimiterContext {
    /// How many requests may wait for a window's time: four times as many slots as leave between two questions on an
    /// average. More would be refused with the answer, and each costs Redis an entry.
    func crowd(of subject: SubjectKey) -> Int {
        let slots = FullWindowMemory.shortest.nanoseconds / paces[Int(subject.policy)].nanoseconds
        return Int(min(4 * slots, Int64(WindowTransaction.entriesMax)))
    }
}
