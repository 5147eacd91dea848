// The parent of a node: it holds the listening sockets, so that nobody is refused while there is no worker process, starts
// one in place of one that crashed, and lets a new binary take over from the running one.
//
// It serves nothing itself and knows nothing of HTTP: what never changes seldom breaks. All that it waits for is one list
// of descriptors: signals, and a line to each of its processes.

package import LinuxIO
import Primitives

/// How loud a line of the log is.
package enum SupervisorLogLevel: Sendable { case notice, warning, error, critical }

package final class Supervisor {
    package typealias Log = (SupervisorLogLevel, String, [String: String]) -> Void

    /// A process of the node.
    private struct Worker {
        let id: Int32
        let channel: Channel
        var isReady = false
        /// Why it did not start, in its own words.
        var failure: String?
    }

    private let started: StartedAs
    private let manager: ServiceManager
    private let log: Log
    private let signals: SignalSource
    private var current: Worker?
    /// A new binary that does not serve yet.
    private var candidate: Worker?
    private var candidateLimit = MonotonicTime.distantFuture
    /// Those that finish what they have begun.
    private var leaving: [Worker] = []
    private var sockets: [(role: SocketRole, socket: ListeningSocket)] = []
    private var policy = RestartPolicy()
    private var crashes = 0
    private var lastCrash = ""
    private var restartAt = MonotonicTime.distantFuture
    private var reloadedBy = MonotonicTime.distantFuture
    private var isStopping = false
    private var hasServed = false
    private var outcome: Int32?

    /// Exit code of a supervisor that gives up (EX_SOFTWARE, sysexits.h).
    package static let gaveUp: Int32 = 70
    /// A node that has not said that it has taken in its configuration again by then has most likely refused it.
    private static let reloadTime = TimeSpan.seconds(10)

    package static let signalNumbers = [
        Signals.terminate, Signals.interrupt, Signals.hangUp, Signals.reopen, Signals.upgrade, Signals.childEnded,
    ]

    /// Block `signalNumbers` first.
    package init(_ started: StartedAs, log: @escaping Log) throws(SystemError) {
        self.started = started
        self.log = log
        manager = ServiceManager(environment: started.environment)
        signals = try SignalSource(Self.signalNumbers)
        takeOver(started.environment[HandoverKeys.supervisor])
    }

    /// Runs until the node has ended; returns the exit code.
    package func run() -> Int32 {
        if current == nil { startWorker() }
        while true {
            if let outcome { return outcome }
            let workers = ([current, candidate].compactMap { $0 } + leaving)
            let due = min(restartAt, candidateLimit, reloadedBy)
            var wait: Int32?
            if due < .distantFuture {
                wait = Int32(clamping: max(.zero, due - SystemClock.monotonic()).milliseconds + 1)
            }
            let readable = awaitReadable(
                [signals.descriptor.raw] + workers.map { $0.channel.descriptor.raw }, atMost: wait)
            // What a process said before it ended is heard before its end.
            for (worker, isReadable) in zip(workers, readable.dropFirst()) where isReadable { _ = hear(worker) }
            if readable[0] { while let signal = signals.next() { received(signal) } }
            lookAtTime(SystemClock.monotonic())
        }
    }

    // MARK: Processes

    private func start(_ program: String) throws(SystemError) -> Worker {
        let (here, there) = try Channel.pair()
        let list = SocketList(sockets.map { SocketList.Entry(raw: $0.socket.descriptor.raw, role: $0.role) })
        var adding = [
            HandoverKeys.sockets: list.text,
            HandoverKeys.parent: ParentLink.variable(there.descriptor.raw, isSupervisor: true),
            HandoverKeys.crashes: "\(crashes)",
        ]
        if !lastCrash.isEmpty { adding[HandoverKeys.lastCrash] = lastCrash }
        let id = try Processes.start(
            program, started.arguments, environment: HandoverKeys.environment(started.environment, adding: adding),
            keeping: sockets.map { $0.socket.descriptor.raw } + [there.descriptor.raw], blocking: NodeSignals.all,
            ownGroup: true)
        there.descriptor.closeEarly()
        return Worker(id: id, channel: here)
    }

    /// The very program that this one is, even where another lies in its place by now.
    private func startWorker() {
        restartAt = .distantFuture
        guard current == nil else { return }
        do throws(SystemError) {
            current = try start("/proc/self/exe")
        } catch {
            log(.critical, "no worker process can be started", ["reason": error.description])
            ended(nil, .exited(1))
        }
    }

    /// Takes one word of a process; `false` where it says no more.
    private func hear(_ worker: Worker) -> Bool {
        guard let (text, descriptors) = worker.channel.receive() else {
            close(worker)
            return false
        }
        switch Word(text) {
        case .ready(let roles):
            var taken: [(role: SocketRole, socket: ListeningSocket)] = []
            for (role, raw) in zip(roles, descriptors) {
                if let socket = ListeningSocket(adopting: raw) { taken.append((role, socket)) }
            }
            for raw in descriptors.dropFirst(roles.count) { Descriptor(adopting: raw).closeEarly() }
            ready(worker, taken)
        case .failed(let reason):
            if worker.id == candidate?.id { candidate?.failure = reason }
        // One that is leaving has nothing more to ask for.
        case .wantsUpgrade: if worker.id == current?.id { upgrade() }
        case .reloaded: if worker.id == current?.id { reloaded() }
        case .upgrading, .handOver, .upgradeFailed, nil: break
        }
        return true
    }

    /// What a process said that has ended since. A new binary that has ended is not made the one that serves, even if it
    /// said so with its last word.
    private func hearLastWords(_ id: Int32) {
        func worker() -> Worker? { current?.id == id ? current : candidate?.id == id ? candidate : nil }
        while let worker = worker(), awaitReadable([worker.channel.descriptor.raw], atMost: 0)[0] {
            if worker.id != candidate?.id {
                if !hear(worker) { return }
                continue
            }
            guard let (text, descriptors) = worker.channel.receive() else { return }
            for raw in descriptors { Descriptor(adopting: raw).closeEarly() }
            if case .failed(let reason) = Word(text), worker.failure == nil { candidate?.failure = reason }
        }
    }

    /// The line has ended: a process that ends does that before it has ended.
    private func close(_ worker: Worker) {
        if current?.id == worker.id { current = Worker(id: worker.id, channel: Self.mute(), isReady: worker.isReady) }
        if candidate?.id == worker.id {
            candidate = Worker(id: worker.id, channel: Self.mute(), failure: candidate?.failure)
        }
        for index in leaving.indices where leaving[index].id == worker.id {
            leaving[index] = Worker(id: worker.id, channel: Self.mute())
        }
    }

    /// A descriptor that never has anything to say: poll(2) leaves negative numbers out.
    private static func mute() -> Channel { Channel(adopting: -1) }

    private func ready(_ worker: Worker, _ taken: [(role: SocketRole, socket: ListeningSocket)]) {
        // Who has been told to end must not become the one that serves.
        let isNew = worker.id == candidate?.id && candidate?.failure == nil && !isStopping
        guard worker.id == current?.id || isNew else { return }
        // It may tell again, when it listens elsewhere. What it listens on no more is let go of.
        sockets = taken
        if worker.id == candidate?.id {
            promote(worker)
        } else if worker.id == current?.id {
            current?.isReady = true
            // It was started again in the middle of that.
            if candidate != nil { worker.channel.send(Word.upgrading.text) }
        }
        if !hasServed {
            hasServed = true
            log(.notice, "supervising", ["worker": "\(worker.id)"])
        }
        manager.ready(status: "serving, worker process \(worker.id)")
    }

    // MARK: Signals

    private func received(_ signal: Int32) {
        switch signal {
        case Signals.childEnded: while let (id, end) = Processes.reap() { ended(id, end) }
        case Signals.terminate, Signals.interrupt: stop(signal)
        case Signals.hangUp:
            guard !isStopping else { return }
            // Where no process serves, the next one reads the file.
            manager.reloading(at: SystemClock.monotonic())
            reloadedBy = SystemClock.monotonic() + Self.reloadTime
            // A new binary may have read the file before it was changed: it reads it again as soon as it serves.
            for worker in [current, candidate].compactMap({ $0 }) { Processes.send(signal, to: worker.id) }
        // Those who leave still write too.
        case Signals.reopen:
            for worker in [current, candidate].compactMap({ $0 }) + leaving { Processes.send(signal, to: worker.id) }
        case Signals.upgrade: upgrade()
        default: break
        }
    }

    private func reloaded() {
        reloadedBy = .distantFuture
        manager.ready(status: "serving, worker process \(current?.id ?? 0)")
    }

    private func stop(_ signal: Int32) {
        isStopping = true
        manager.stopping()
        restartAt = .distantFuture
        if let candidate { Processes.send(Signals.kill, to: candidate.id) }
        // Whoever drains already takes it as a second word, and waits for nobody.
        for worker in leaving { Processes.send(signal, to: worker.id) }
        guard let current else { return leaveIfAlone(0) }
        Processes.send(signal, to: current.id)
    }

    private func leaveIfAlone(_ code: Int32) {
        if current == nil, candidate == nil, leaving.isEmpty { outcome = code }
    }

    // MARK: Ends

    private var exitCode: Int32 = 0

    private func ended(_ id: Int32?, _ end: ProcessEnd) {
        if let id { hearLastWords(id) }
        if let id, let index = leaving.firstIndex(where: { $0.id == id }) {
            leaving.remove(at: index)
            log(
                end == .exited(0) ? .notice : .warning, "the worker process that was replaced has ended",
                ["worker": "\(id)", "end": "\(end)"])
        } else if let id, id == candidate?.id {
            upgradeFailed(candidate?.failure ?? "the new process ended with \(end) before it served: see the log")
        } else if id == current?.id {
            workerEnded(end)
        }
        // Anybody else was adopted, and is only taken from the list.
        if isStopping { leaveIfAlone(exitCode) }
    }

    private func workerEnded(_ end: ProcessEnd) {
        let id = current?.id ?? 0
        let wasReady = current?.isReady ?? false
        current = nil
        if isStopping {
            if case .exited(let code) = end { exitCode = code } else { exitCode = 1 }
            return
        }
        if !hasServed, !wasReady, case .exited(let code) = end {
            // It has said why: a file with errors, an address in use.
            outcome = code == 0 ? 1 : code
            return
        }
        if end != .exited(0) {
            crashes += 1
            lastCrash = "\(end) at \(SystemClock.timestamp(microseconds: SystemClock.wallMicroseconds()))"
        }
        let now = SystemClock.monotonic()
        switch policy.ended(at: now) {
        case .restart(let pause):
            log(
                .error, "the worker process ended unasked and is started again",
                ["worker": "\(id)", "end": "\(end)", "crashes": "\(crashes)", "in": "\(pause)"])
            manager.status("the worker process ended with \(end) and is started again")
            if pause > .zero { restartAt = now + pause } else { startWorker() }
        case .giveUp:
            let text = "\(RestartPolicy.endsMax) ends within \(RestartPolicy.span): giving up"
            log(.critical, "the worker process crashes in a loop", ["end": "\(end)", "reason": text])
            manager.status("the worker process crashes in a loop: \(text)")
            // A new binary that is being started may be the remedy: it has the last word.
            if candidate == nil { outcome = Self.gaveUp }
        }
    }

    private func lookAtTime(_ now: MonotonicTime) {
        if now >= restartAt { startWorker() }
        if now >= reloadedBy { reloaded() }
        if now >= candidateLimit, let candidate {
            candidateLimit = .distantFuture
            self.candidate?.failure = "the new process did not serve within \(Successor.startTime)"
            Processes.send(Signals.kill, to: candidate.id)
        }
    }

    // MARK: Another binary

    private func upgrade() {
        guard !isStopping else { return }
        // Whoever has asked hears how that one ends.
        guard candidate == nil else { return log(.notice, "a new worker process is being started already", [:]) }
        guard let running = current, running.isReady else {
            return log(.warning, "no upgrade: no worker process serves", [:])
        }
        log(.notice, "starting a new worker process", ["program": started.program])
        running.channel.send(Word.upgrading.text)
        do throws(SystemError) {
            candidate = try start(started.program)
            candidateLimit = SystemClock.monotonic() + Successor.startTime
        } catch {
            upgradeFailed("\(started.program) does not start: \(error.reason)")
        }
    }

    private func upgradeFailed(_ reason: String) {
        candidate = nil
        candidateLimit = .distantFuture
        guard !isStopping else { return }
        log(.error, "the upgrade has failed: the old process goes on", ["reason": reason])
        current?.channel.send(Word.upgradeFailed(reason).text)
        // It had been given up.
        if current == nil, restartAt == .distantFuture { outcome = Self.gaveUp }
    }

    /// The new process serves: the old one finishes, and this process becomes what the new binary has for it.
    private func promote(_ worker: Worker) {
        candidate = nil
        candidateLimit = .distantFuture
        restartAt = .distantFuture
        if let old = current {
            old.channel.send(Word.handOver.text)
            leaving.append(old)
        }
        current = Worker(id: worker.id, channel: worker.channel, isReady: true)
        log(.notice, "a new worker process serves", ["worker": "\(worker.id)"])
        becomeNewBinary()
    }

    /// Which process is what, for the program that takes the place of this one: it keeps the process id, the children and
    /// the descriptors.
    private func becomeNewBinary() {
        guard let current else { return }
        let list = SocketList(sockets.map { SocketList.Entry(raw: $0.socket.descriptor.raw, role: $0.role) })
        let state = ([current] + leaving).map { "\($0.id):\($0.channel.descriptor.raw)" }.joined(separator: ",")
        var adding = [
            HandoverKeys.supervisor: state, HandoverKeys.sockets: list.text, HandoverKeys.crashes: "\(crashes)",
        ]
        if !lastCrash.isEmpty { adding[HandoverKeys.lastCrash] = lastCrash }
        let keeping =
            sockets.map { $0.socket.descriptor.raw }
            + ([current] + leaving).map { $0.channel.descriptor.raw }.filter { $0 > 2 }
        do throws(SystemError) {
            try Processes.replace(
                started.program, started.arguments,
                environment: HandoverKeys.environment(started.environment, adding: adding), keeping: keeping)
        } catch {
            log(.warning, "the supervisor goes on as the old binary", ["reason": error.description])
        }
    }

    /// Goes on where the binary before this one has left off.
    private func takeOver(_ state: String?) {
        guard let state else { return }
        var workers: [Worker] = []
        for part in state.split(separator: ",") {
            let halves = part.split(separator: ":").compactMap { Int32($0) }
            guard halves.count == 2, halves[0] > 0 else { continue }
            let channel = halves[1] > 2 ? Channel(adopting: halves[1]) : Self.mute()
            workers.append(Worker(id: halves[0], channel: channel, isReady: true))
        }
        guard let first = workers.first else { return }
        current = first
        leaving = Array(workers.dropFirst())
        for entry in SocketList(started.environment[HandoverKeys.sockets] ?? "").entries {
            if let socket = ListeningSocket(adopting: entry.raw) { sockets.append((entry.role, socket)) }
        }
        crashes = Int(started.environment[HandoverKeys.crashes] ?? "") ?? 0
        lastCrash = started.environment[HandoverKeys.lastCrash] ?? ""
        hasServed = true
        manager.ready(status: "serving, worker process \(first.id)")
        // Whoever ended while one binary took the other's place has no signal of its own.
        while let (id, end) = Processes.reap() { ended(id, end) }
    }
}
