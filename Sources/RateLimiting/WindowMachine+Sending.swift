// What goes to Redis next, and in which words.

package import Hiredis
import Identity
import LinuxIO
package import Primitives

extension WindowMachine {
    // MARK: Sending

    /// The next thing to send, until there is none. Call `write` for its commands before anything else.
    ///
    /// - Parameter now: read just before; survivors are scored by it.
    package mutating func next(at now: MonotonicTime) -> Transmission? {
        guard breaker.mayAsk else {
            if !breaker.isConnecting { releaseGathered(at: now) }
            return nil
        }
        releaseHeld(at: now)
        while let flight = ready.popFirst() {
            if case .cleanup(let subject, let time) = flight, isStale(subject, time, at: now) { continue }
            return launch(flight)
        }
        if let run = nextEntries(at: now) {
            entriesUnderWay += 1
            return launch(.entries(run))
        }
        while let subject = gathered.first {
            if carrying.isNeeded, isWaiting(subject), carrying.mustCarry(subject, context.former, at: now) {
                return launch(.carrying(subject))
            }
            guard let place = subjects.find(subject), let flight = load(place, subject, at: now) else {
                _ = gathered.popFirst()
                continue
            }
            return flight
        }
        return nil
    }

    /// Whether so much time has passed since entries were seen far ahead that others could be taken for them now. Whoever
    /// asks next sees them again.
    private func isStale(_ subject: SubjectKey, _ bound: RedisTime, at now: MonotonicTime) -> Bool {
        let seenAt = bound - context.aheadMax(of: subject)
        return clocks[context.windowOf[Int(subject.policy)]].upper(at: now) - seenAt > LimiterContext.clearingMax
    }

    private mutating func launch(_ flight: Flight) -> Transmission {
        let form: Transmission.Form =
            switch flight {
            case .window(let flight): .transaction(commands: commandCount(flight.transaction))
            case .entries(let run): run.isCharged ? .transaction(commands: mayOverfill(run) ? 3 : 2) : .command
            case .probe: .transaction(commands: probeCommands)
            // What admits is never a bare command: out of step, any number would be taken for its answer.
            case .confirmation: .transaction(commands: 1)
            case .cleanup, .sweep: .command
            case .carrying: .transaction(commands: Self.carryingCommands)
            }
        return Transmission(token: UInt64(flights.insert(flight)), form: form)
    }

    private func commandCount(_ transaction: WindowTransaction) -> Int {
        if context.isPlain, transaction.keptFree == 0 { return context.commandCount }
        if context.isInBuckets(transaction.subject) { return Buckets.commandCount }
        let own = transaction.ownCommandCount
        return transaction.keptFree > 0 ? own + 1 : context.commandCount + own - WindowTransaction.commandCount
    }

    /// Makes a transaction of the requests that gather; `nil` where none are left.
    private mutating func load(_ place: Int, _ subject: SubjectKey, at now: MonotonicTime) -> Transmission? {
        guard subjects[place].waiting > 0 else {
            subjects[place].isQueued = false
            freeList(subjects[place].first)
            subjects[place].first = -1
            subjects[place].last = -1
            dropIfIdle(place, subject)
            return nil
        }
        // More than the limit cannot be admitted, so more entries would only cost; whoever has none is refused with the
        // answer. Beyond the bound on entries, another transaction takes the rest.
        let keptFree = context.keptFree(of: subject)
        let limit = context.policies[Int(subject.policy)].limit - keptFree
        let count = min(subjects[place].waiting, limit, WindowTransaction.entriesMax)
        let transaction: WindowTransaction
        var passengers = count == limit || count == subjects[place].waiting ? Int.max : count
        if context.isPlain {
            transaction = WindowTransaction(
                subject, first: names.take(count), count: count, keptFree: keptFree,
                clock: clocks[context.windowOf[Int(subject.policy)]], at: now)
        } else {
            (transaction, passengers) = weighed(place, subject, keptFree: keptFree, at: now)
        }
        let index = flights.insert(
            .window(WindowFlight(transaction: transaction, firstRequest: -1, isAsker: subjects[place].isAsker)))
        let firstRequest = board(place, flight: Int32(clamping: index), count: passengers)
        switch flights[index] {
        case .window(var flight):
            flight.firstRequest = firstRequest
            flights[index] = .window(flight)
        case .confirmation, .entries, .cleanup, .sweep, .carrying, .probe: break
        }
        subjects[place].flights += 1
        subjects[place].isAsker = false
        return Transmission(
            token: UInt64(index), form: .transaction(commands: commandCount(transaction)), mayShare: true)
    }

    /// A transaction where requests differ in cost, or are counted in buckets; and how many of them it carries.
    private mutating func weighed(
        _ place: Int, _ subject: SubjectKey, keptFree: Int, at now: MonotonicTime
    ) -> (WindowTransaction, passengers: Int) {
        let limit = context.policies[Int(subject.policy)].limit - keptFree
        let inBuckets = context.isInBuckets(subject)
        let countMax = min(limit, inBuckets ? Buckets.reservedMax : WindowTransaction.entriesMax)
        var (count, passengers, largest) = (0, 0, 1)
        var index = subjects[place].first
        while index >= 0 {
            if requests[Int(index)].state == .waiting {
                let cost = min(Int(requests[Int(index)].cost), countMax)
                guard count + cost <= countMax else { break }
                count += cost
                passengers += 1
                largest = max(largest, cost)
            }
            index = requests[Int(index)].next
        }
        let clock = clocks[context.windowOf[Int(subject.policy)]]
        // More than the limit cannot be admitted: whoever is left is refused with the answer.
        if count == limit { passengers = .max }
        let transaction =
            inBuckets
            ? WindowTransaction(
                subject, in: context.key(of: subject).buckets, count: count, keptFree: keptFree, clock: clock, at: now)
            : WindowTransaction(
                subject, first: names.take(count), count: count, largest: largest, keptFree: keptFree, clock: clock,
                at: now)
        return (transaction, passengers)
    }

    /// Moves up to `count` waiting requests from those that gather to a flight. Returns the first.
    private mutating func board(_ place: Int, flight: Int32, count: Int) -> Int32 {
        var first: Int32 = -1
        var last: Int32 = -1
        var taken = 0
        var index = subjects[place].first
        while index >= 0, taken < count {
            let next = requests[Int(index)].next
            switch requests[Int(index)].state {
            case .waiting:
                requests[Int(index)].flight = flight
                requests[Int(index)].next = -1
                if last >= 0 { requests[Int(last)].next = index } else { first = index }
                last = index
                taken += 1
            case .admittedByLossRule, .refusedByLossRule: _ = requests.remove(Int(index))
            }
            index = next
        }
        subjects[place].first = index
        if index < 0 { subjects[place].last = -1 }
        subjects[place].waiting -= taken
        return first
    }

    mutating func freeList(_ first: Int32) {
        var index = first
        while index >= 0 {
            index = requests.remove(Int(index))?.next ?? -1
        }
    }

    mutating func dropIfIdle(_ place: Int, _ subject: SubjectKey) {
        let state = subjects[place]
        if state.waiting == 0, state.flights == 0, !state.isQueued, state.first < 0 { subjects.remove(subject) }
    }

    /// Writes the commands of what `next` returned, without `MULTI` and `EXEC`.
    ///
    /// - Parameter hasTime: whether it goes into a transaction whose `TIME` has been written.
    package func write(_ transmission: Transmission, hasTime: Bool = false, to writer: inout CommandWriter) {
        switch flights[Int(transmission.token)] {
        case .window(let flight):
            let subject = flight.transaction.subject
            if context.isInBuckets(subject) {
                let key = context.key(of: subject)
                key.buckets.write(flight.transaction, key, hasTime: hasTime, to: &writer)
                return
            }
            templates[Int(subject.policy)].write(flight.transaction, names, hasTime: hasTime, to: &writer)
        case .confirmation(let flight, let admitted, let time):
            let key = context.key(of: flight.transaction.subject)
            // XX: who has been dropped meanwhile must not come back. CH: how many are still there.
            writer.add("ZADD")
            writer.add { key.write(flight.transaction.subject, to: &$0) }
            writer.add("XX")
            writer.add("CH")
            for offset in 0..<UInt64(admitted) {
                writer.add(time.microseconds)
                writer.add { names.write(flight.transaction.first &+ offset, to: &$0) }
            }
            writer.end()
        case .entries(let run): write(run, to: &writer)
        case .cleanup(let subject, let time):
            let key = context.key(of: subject)
            writer.add("ZREMRANGEBYSCORE")
            writer.add { key.write(subject, to: &$0) }
            writer.add { buffer in
                buffer.append(UInt8(ascii: "("))
                buffer.append(decimal: Int(time.microseconds))
            }
            writer.add("+inf")
            writer.end()
        case .carrying(let subject): writeCarrying(subject, to: &writer)
        case .sweep(let subject, let first, let count):
            let key = context.key(of: subject)
            key.buckets.writeSweep(subject, key, first: first, count: count, to: &writer)
        case .probe:
            writeProbe(to: &writer)
        }
    }

    /// Commands of a probe.
    var probeCommands: Int { context.asksCounts ? 10 : 9 }

    /// Every command that decisions need, on a key that never exists, so that nothing changes: a server that only reads,
    /// is out of memory or forbids one of them must not seem to be back. The marker is lost with the data, and then has
    /// another value for everyone.
    private func writeProbe(to writer: inout CommandWriter) {
        let key = context.keys[0]
        let tag = probeTag
        writer.time()
        func add(_ command: StaticString, _ arguments: StaticString...) {
            writer.add(command)
            writer.add { key.writeProbe(tag: tag, to: &$0) }
            for argument in arguments { writer.add(argument) }
            writer.end()
        }
        add("ZREMRANGEBYSCORE", "-inf", "0")
        add("ZADD", "XX", "0", "probe")
        add("ZREMRANGEBYRANK", "0", "-1")
        add("ZRANGE", "0", "0", "WITHSCORES")
        add("ZREM", "probe")
        add("PEXPIRE", "1")
        writer.add("SETNX")
        writer.add { key.writeEpoch(tag: tag, to: &$0) }
        writer.add { names.write(probeName, to: &$0) }
        writer.end()
        writer.add("GET")
        writer.add { key.writeEpoch(tag: tag, to: &$0) }
        writer.end()
        if context.asksCounts { add("ZCARD") }
    }

    /// Whether a window can hold too much with these: what was let in without Redis, or what it has let go already, as
    /// it was executed before its answer came. Of leases, each has a request that runs.
    private func mayOverfill(_ run: Entries) -> Bool {
        run.isCharged && !context.isInBuckets(run.subject) && !context.isLeased(run.subject)
    }

    private func write(_ run: Entries, to writer: inout CommandWriter) {
        let key = context.key(of: run.subject)
        if context.isInBuckets(run.subject) {
            let clock = clocks[context.windowOf[Int(run.subject.policy)]]
            let bucket = run.isCharged ? key.buckets.bucket(of: clock.upper(at: run.at)) : run.first
            let count = Int64(run.isCharged ? run.count : -run.count)
            key.buckets.writeCount(run.subject, key, bucket: bucket, by: count, to: &writer)
            if run.isCharged { WindowTransaction.writeExpiry(key, run.subject, to: &writer) }
        } else if run.isCharged {
            let score = clocks[context.windowOf[Int(run.subject.policy)]].upper(at: run.at)
            writer.add("ZADD")
            writer.add { key.write(run.subject, to: &$0) }
            if run.renewal >= 0 {
                // XX CH: whether it is still there.
                writer.add("XX")
                writer.add("CH")
            } else {
                // NX: what is there has its time already.
                writer.add("NX")
            }
            for offset in 0..<UInt64(run.count) {
                writer.add(score.microseconds)
                writer.add { names.write(run.first &+ offset, to: &$0) }
            }
            writer.end()
            if mayOverfill(run) { WindowTransaction.writeOldestOut(key, run.subject, to: &writer) }
            WindowTransaction.writeExpiry(key, run.subject, to: &writer)
        } else {
            writer.add("ZREM")
            writer.add { key.write(run.subject, to: &$0) }
            for offset in 0..<UInt64(run.count) { writer.add { names.write(run.first &+ offset, to: &$0) } }
            writer.end()
        }
    }
}
