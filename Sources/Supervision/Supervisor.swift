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
        var channel: Channel
        var isReady = false
        /// Why it did not start, in its own words.
        var failure: String?
        var manner: Manner?
        /// The text of the configuration that it goes by.
        var configuration: KeptText?
        /// Who has not ended by then hangs, and is killed.
        var endsBy = MonotonicTime.distantFuture
    }

    /// What the supervisor needs of the program around it.
    package struct Voice {
        package var log: Log
        /// Logs from here on as the configuration in force wants it.
        package var follow: (Manner) -> Void
        /// Writes out what was logged: this program is about to be replaced by another.
        package var flush: () -> Void

        package init(log: @escaping Log, follow: @escaping (Manner) -> Void, flush: @escaping () -> Void) {
            self.log = log
            self.follow = follow
            self.flush = flush
        }
    }

    private let started: StartedAs
    private let manager: ServiceManager
    private let voice: Voice
    private var log: Log { voice.log }
    private let signals: SignalSource
    private var current: Worker?
    /// A new binary that does not serve yet.
    private var candidate: Worker?
    private var candidateLimit = MonotonicTime.distantFuture
    /// Those that finish what they have begun.
    private var leaving: [Worker] = []
    private var sockets: [(role: SocketRole, socket: ListeningSocket)] = []
    /// Of the configuration in force, or of the last one.
    private var manner: Manner?
    private var configuration: KeptText?
    /// Whether the last process that was to take a crashed one's place did not come to serve with the file as it is.
    private var distrustsFile = false
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
    /// What an end takes beyond its drain: logs are written out, spans sent. A process that takes longer hangs.
    private static let endMargin = TimeSpan.seconds(8)
    /// The same where it was told again, and waits for nobody.
    private static let hurriedEndTime = TimeSpan.seconds(2)
    /// The drain of a process that has not said how long its own is.
    private static let endTimeDefault = TimeSpan.seconds(30)

    package static let signalNumbers = [
        Signals.terminate, Signals.interrupt, Signals.hangUp, Signals.reopen, Signals.upgrade, Signals.childEnded,
    ]

    /// Block `signalNumbers` first.
    package init(_ started: StartedAs, _ voice: Voice) throws(SystemError) {
        self.started = started
        self.voice = voice
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
            let due = workers.map(\.endsBy).reduce(min(restartAt, candidateLimit, reloadedBy), min)
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

    /// - Parameter isRestart: whether it takes the place of one that has crashed: it goes by the configuration that was in
    ///   force where the file is of no use by now.
    private func start(_ program: String, isRestart: Bool) throws(SystemError) -> Worker {
        let (here, there) = try Channel.pair()
        let list = SocketList(sockets.map { SocketList.Entry(raw: $0.socket.descriptor.raw, role: $0.role) })
        var adding = [
            HandoverKeys.sockets: list.text,
            HandoverKeys.parent: ParentLink.variable(there.descriptor.raw, isSupervisor: true),
            HandoverKeys.crashes: "\(crashes)",
        ]
        if !lastCrash.isEmpty { adding[HandoverKeys.lastCrash] = lastCrash }
        var keeping = sockets.map { $0.socket.descriptor.raw } + [there.descriptor.raw]
        if isRestart, let configuration {
            keeping.append(configuration.descriptor.raw)
            adding[HandoverKeys.configuration] = KeptConfiguration.variable(
                configuration.descriptor.raw, isOnly: distrustsFile)
        }
        let id = try Processes.start(
            program, started.arguments, environment: HandoverKeys.environment(started.environment, adding: adding),
            keeping: keeping, blocking: NodeSignals.all, ownGroup: true)
        there.descriptor.closeEarly()
        return Worker(id: id, channel: here)
    }

    /// Tells a process to end, and remembers by when it must have.
    private func tellToEnd(_ worker: inout Worker, _ signal: Int32, within time: TimeSpan) {
        Processes.send(signal, to: worker.id)
        worker.endsBy = min(worker.endsBy, SystemClock.monotonic() + time)
    }

    private var orderlyEndTime: TimeSpan { (manner?.endTime ?? Self.endTimeDefault) + Self.endMargin }

    /// The very program that this one is, even where another lies in its place by now.
    private func startWorker() {
        restartAt = .distantFuture
        guard current == nil else { return }
        do throws(SystemError) {
            current = try start("/proc/self/exe", isRestart: true)
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
        let word = Word(text)
        switch word {
        case .ready, .configuration: break
        // A newer binary may have words that are not known here, and descriptors with them.
        default: for raw in descriptors { Descriptor(adopting: raw).closeEarly() }
        }
        switch word {
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
        case .manner(let manner): change(worker) { $0.manner = manner }
        case .configuration:
            guard let raw = descriptors.first else { break }
            let kept = KeptText(adopting: raw)
            for raw in descriptors.dropFirst() { Descriptor(adopting: raw).closeEarly() }
            change(worker) { $0.configuration = kept }
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
    private func close(_ worker: Worker) { change(worker) { $0.channel = Self.mute() } }

    private func change(_ worker: Worker, _ body: (inout Worker) -> Void) {
        if candidate?.id == worker.id, var changed = candidate {
            body(&changed)
            candidate = changed
        }
        for index in leaving.indices where leaving[index].id == worker.id { body(&leaving[index]) }
        guard current?.id == worker.id, var changed = current else { return }
        body(&changed)
        current = changed
        if changed.isReady { goBy(changed) }
    }

    /// Its configuration is the one in force.
    private func goBy(_ worker: Worker) {
        configuration = worker.configuration ?? configuration
        guard let new = worker.manner, new != manner else { return }
        manner = new
        voice.follow(new)
    }

    /// A descriptor that never has anything to say: poll(2) leaves negative numbers out.
    private static func mute() -> Channel { Channel(adopting: -1) }

    private func ready(_ worker: Worker, _ taken: [(role: SocketRole, socket: ListeningSocket)]) {
        // Who has been told to end must not become the one that serves.
        let isNew = worker.id == candidate?.id && candidate?.failure == nil && !isStopping
        guard worker.id == current?.id || isNew else { return }
        // It may tell again, when it listens elsewhere. What it listens on no more is let go of.
        sockets = taken
        distrustsFile = false
        if let next = candidate, next.id == worker.id {
            promote(next)
        } else if worker.id == current?.id, var serving = current {
            serving.isReady = true
            current = serving
            goBy(serving)
            // It was started again in the middle of that.
            if candidate != nil { serving.channel.send(Word.upgrading.text) }
        }
        if !hasServed {
            hasServed = true
            log(.notice, "supervising", ["worker": "\(worker.id)"])
        }
        if !isStopping { manager.ready(status: "serving, worker process \(worker.id)") }
    }

    // MARK: Signals

    private func received(_ signal: Int32) {
        switch signal {
        case Signals.childEnded: while let (id, end) = Processes.reap() { ended(id, end) }
        case Signals.terminate, Signals.interrupt: stop(signal)
        case Signals.hangUp:
            guard !isStopping else { return }
            // Where no process serves, the next one reads the file.
            if current == nil { distrustsFile = false }
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
        // Who becomes ready later says so itself.
        if !isStopping, let current, current.isReady {
            manager.ready(status: "serving, worker process \(current.id)")
        }
    }

    private func stop(_ signal: Int32) {
        let isFirst = !isStopping
        isStopping = true
        manager.stopping()
        restartAt = .distantFuture
        if let candidate { Processes.send(Signals.kill, to: candidate.id) }
        // Whoever drains already has the time that it was given, unless this is the second word.
        let time = isFirst ? orderlyEndTime : Self.hurriedEndTime
        for index in leaving.indices {
            if isFirst, leaving[index].endsBy < .distantFuture {
                Processes.send(signal, to: leaving[index].id)
            } else {
                tellToEnd(&leaving[index], signal, within: time)
            }
        }
        guard var ending = current else { return leaveIfAlone(0) }
        tellToEnd(&ending, signal, within: time)
        current = ending
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
        // Whatever is wrong with it, an address that is taken for example: the last one was right.
        if id != 0, !wasReady { distrustsFile = true }
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
        if var hanging = current, kill(&hanging, at: now) { current = hanging }
        for index in leaving.indices { _ = kill(&leaving[index], at: now) }
        if now >= candidateLimit, let candidate {
            candidateLimit = .distantFuture
            self.candidate?.failure = "the new process did not serve within \(Successor.startTime)"
            Processes.send(Signals.kill, to: candidate.id)
        }
    }

    /// Ends a process that has not ended by itself; whether it came to that.
    private func kill(_ worker: inout Worker, at now: MonotonicTime) -> Bool {
        guard now >= worker.endsBy else { return false }
        worker.endsBy = .distantFuture
        log(.error, "a worker process hangs instead of ending, and is killed", ["worker": "\(worker.id)"])
        Processes.send(Signals.kill, to: worker.id)
        return true
    }

    // MARK: Another binary

    private func upgrade() {
        guard !isStopping else {
            return log(.warning, "no new worker process is started", ["reason": "this node ends"])
        }
        // Whoever has asked hears how that one ends.
        guard candidate == nil else { return log(.notice, "a new worker process is being started already", [:]) }
        guard let running = current, running.isReady else {
            return log(.warning, "no new worker process is started", ["reason": "none serves yet"])
        }
        log(.notice, "starting a new worker process", ["program": started.program])
        running.channel.send(Word.upgrading.text)
        do throws(SystemError) {
            candidate = try start(started.program, isRestart: false)
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
    private func promote(_ next: Worker) {
        candidateLimit = .distantFuture
        restartAt = .distantFuture
        candidate = nil
        if var old = current {
            old.channel.send(Word.handOver(next.id).text)
            old.endsBy = SystemClock.monotonic() + orderlyEndTime
            leaving.append(old)
        }
        current = Worker(
            id: next.id, channel: next.channel, isReady: true, manner: next.manner, configuration: next.configuration)
        goBy(next)
        log(.notice, "a new worker process serves", ["worker": "\(next.id)"])
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
        if let manner { adding[HandoverKeys.manner] = manner.text }
        if let last = leaving.map(\.endsBy).filter({ $0 < .distantFuture }).max() {
            adding[HandoverKeys.leavesWithin] = "\(max(.zero, last - SystemClock.monotonic()).milliseconds)"
        }
        if let configuration {
            adding[HandoverKeys.configuration] = "\(configuration.descriptor.raw)"
        }
        let keeping =
            (configuration.map { [$0.descriptor.raw] } ?? []) + sockets.map { $0.socket.descriptor.raw }
            + ([current] + leaving).map { $0.channel.descriptor.raw }.filter { $0 > 2 }
        voice.flush()
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
        manner = Manner(started.environment[HandoverKeys.manner] ?? "")
        if let raw = Int32(started.environment[HandoverKeys.configuration] ?? ""), raw > 2 {
            configuration = KeptText(adopting: raw)
        }
        if let left = Int64(started.environment[HandoverKeys.leavesWithin] ?? ""), (0...1_000_000_000).contains(left) {
            let leavesBy = SystemClock.monotonic() + .milliseconds(left)
            for index in leaving.indices { leaving[index].endsBy = leavesBy }
        }
        manager.ready(status: "serving, worker process \(first.id)")
        // Whoever ended while one binary took the other's place has no signal of its own.
        while let (id, end) = Processes.reap() { ended(id, end) }
    }
}
