// One configuration for all nodes that want it: `config: {from: redis}`.
//
// Somebody gives a node a new text. That node stores it under the next version number, and asks all nodes that follow for
// their vote; each checks it as if it were to start with it, with what its own file and command line say of itself.
// Where all agree, one write makes it the current version, and the news of it lets everyone switch. Where one refuses or
// is silent, nothing is written: all stay. The write is what counts. Who has missed the news, was away or starts later
// reads the current version. Each node says when it has switched, with all its workers, and the one that was given the
// text waits for that before it says that it is done. Where that write gets no answer nobody knows what became of it until
// Redis tells.
//
// A node that is told to end takes part for as long as it serves everybody (`drain.delay`). One that has left the cluster
// is waited for no more, neither for its vote nor for its switch.
//
//   sluice:config:last        string: the last version number that was given
//   sluice:config:versions    hash: version → text, time, author, note (JSON)
//   sluice:config:history     hash: the same without the texts
//   sluice:config:proposal    string: the version that is being voted on; expires
//   sluice:config:votes:N     hash: node → "ok", or what is wrong; expires
//   sluice:config:adopted     hash: node → the version that it goes by now, or that it cannot, and why; expires
//   sluice:config:current     string: the version in force
//   sluice:config             channel: "vote N", "voted N", "current N", "adopted N"

import EventLoop
import Hiredis
import LinuxIO
import Logging
import Membership
import Primitives
import RedisClient

final class ConfigurationFollower {
    private unowned let control: Control
    private var lookTimer: LoopTimer?
    /// The end of the vote, and of the wait for all to switch.
    private var limitTimer: LoopTimer?
    private(set) var rollout = Rollout()
    /// Everything that has been proposed, the latest first; without the texts.
    private(set) var history: [ConfigurationVersion] = []
    /// Why Redis does not let it be read, and the version in force.
    private(set) var historyRefusal: String?
    private var currentRefusal: String?
    /// Being adopted.
    private var wanted = 0
    private var failed = 0
    /// The version that this node has voted on last.
    private var lastVote = 0
    private var notBefore = MonotonicTime(nanoseconds: .min)
    private var expected: Set<String> = []
    /// Who was expected and has said goodbye.
    private var gone: Set<String> = []
    /// What is being voted on, without its text.
    private var proposed: ConfigurationVersion?
    /// Refusals that Redis has not taken yet.
    private var unwritten: [ConfigurationVersion] = []
    private var unsettled: [Unsettled] = []
    /// This node has said goodbye, or another process speaks for it.
    private var hasLeft = false
    /// Until then the key `proposal` is this node's, and nobody else proposes anything.
    private var ownsUntil = MonotonicTime(nanoseconds: .min)

    /// How often the current version is looked up, for news that was missed.
    private static let lookInterval = TimeSpan.seconds(2)
    /// Checking takes milliseconds, looking up names of backends may take seconds.
    private static let voteTime = TimeSpan.seconds(10)
    /// Switching takes milliseconds; looking up names may take seconds again.
    private static let switchTime = TimeSpan.seconds(10)
    /// Longer than a vote takes, so that nobody begins another one in its midst.
    private static let ownTime = voteTime + .seconds(2)
    private static let retryInterval = TimeSpan.seconds(30)
    /// Versions that are kept.
    private static let versionsMax = 50
    /// Proposals whose outcome is still open, or not in Redis yet, that are remembered.
    private static let openMax = 16
    /// As much of a refusal is kept as a person reads.
    private static let refusalMax = 500

    init(_ control: Control) {
        self.control = control
        let loop = control.loop
        lookTimer = LoopTimer(loop) { [weak self] in self?.look() }
        limitTimer = LoopTimer(loop) { [weak self] in self?.timeIsOver() }
        look()
    }

    func close() {
        lookTimer?.cancel()
        limitTimer?.cancel()
    }

    /// In force from the cluster; 0: this node's own file.
    private var version: Int { control.generation.followed?.version ?? 0 }
    private var hash: String { control.generation.followed?.hash ?? "" }

    private func ask(_ commands: [[String]], _ then: @escaping (Result<Reply, Unanswered>) -> Void) {
        guard let link = control.link, link.isReached else {
            then(.failure(Unanswered(failure: control.link?.lastFailure ?? .notConnected, commands: [])))
            return
        }
        link.ask(commands) { then($0.mapError { Unanswered(failure: $0, commands: commands) }) }
    }

    /// Asks for what this node must know: a refusal is told once, and kept for those who ask.
    private func read(
        _ command: [String], _ refusal: ReferenceWritableKeyPath<ConfigurationFollower, String?>,
        _ then: @escaping (Reply) -> Void
    ) {
        ask([command]) { [weak self] answer in
            guard let self else { return }
            switch answer {
            case .success(let reply):
                self[keyPath: refusal] = nil
                then(reply)
            // A Redis that is gone is told of elsewhere, and what was read before holds.
            case .failure(let failure):
                guard failure.isRefusal else { return }
                let text = failure.description
                if self[keyPath: refusal] != text {
                    control.logger.warning(
                        "the cluster's configurations cannot be read", metadata: ["reason": "\(text)"])
                }
                self[keyPath: refusal] = text
            }
        }
    }

    private func key(_ name: String) -> String { control.link?.placed("sluice:config:\(name)") ?? name }

    // MARK: Following

    /// The line to the others is there.
    func reached() {
        // A process that has begun with it has not been asked to adopt it.
        if version > 0 { tellAdopted(version, nil) }
        readCurrent()
        writeRefusals()
    }

    private func look() {
        lookTimer?.schedule(after: Self.lookInterval)
        writeRefusals()
        readHistory()
        // Also for what a node has written that may not publish.
        lookWithoutNews()
    }

    /// What is told is not heard: everything that it could be is looked up.
    func lookWithoutNews() {
        readCurrent()
        if rollout.state == .voting { count() }
        if rollout.state == .switching { countAdopted() }
        ask([["GET", key("proposal")]]) { [weak self] answer in
            guard let self, case .success(let reply) = answer,
                let number = reply.integer(0).map({ Int(clamping: $0) }), number != lastVote
            else { return }
            fetch(number) { [weak self] in if case .success(let found) = $0 { self?.check(found) } }
        }
    }

    func told(_ message: String) {
        let words = message.split(separator: " ")
        guard words.count == 2, let number = Int(words[1]) else { return }
        switch words[0] {
        case "vote": fetch(number) { [weak self] in if case .success(let found) = $0 { self?.check(found) } }
        case "voted": if rollout.state == .voting, rollout.version == number { count() }
        case "current": readCurrent()
        case "adopted": if rollout.state == .switching, number >= rollout.version { countAdopted() }
        default: break
        }
    }

    private func readCurrent() {
        read(["GET", key("current")], \.currentRefusal) { [weak self] reply in
            guard let self else { return }
            let current = Int(clamping: reply.integer(0) ?? 0)
            settle(current)
            guard !hasLeft, current > 0, current != version || isAnotherText, current != wanted,
                current != failed || control.loop.now >= notBefore
            else { return }
            wanted = current
            fetch(current) { answer in
                guard case .success(let found?) = answer else {
                    let reason: String
                    switch answer {
                    case .success: reason = "it is not in Redis"
                    case .failure(let failure): reason = failure.description
                    }
                    self.control.logger.error(
                        "the current configuration cannot be read",
                        metadata: ["version": "\(current)", "reason": "\(reason)"])
                    self.wanted = 0
                    return
                }
                self.control.board.ask(.adopt(Followed(found)))
            }
        }
    }

    /// Whether the number of what is in force has been given to another text: Redis had lost its data and counted anew.
    private var isAnotherText: Bool { history.first { $0.version == version }.map { $0.hash != hash } ?? false }

    /// The highest version that anybody here knows of. A Redis that has lost its data counts from 1 again, and what has
    /// the number of what is in force would change nothing.
    private var highest: Int {
        // A hash has 16 digits.
        let announced = control.members.compactMap { member in
            member.info?.configuration.flatMap { $0.utf8.count < 16 ? Int($0) : nil }
        }
        return max(version, history.first?.version ?? 0, announced.max() ?? 0)
    }

    private func fetch(_ number: Int, _ then: @escaping (Result<ConfigurationVersion?, Unanswered>) -> Void) {
        ask([["HGET", key("versions"), "\(number)"]]) { answer in
            then(answer.map { $0.kind(0) == .bulk ? ConfigurationVersion(json: $0.bytes(0)) : nil })
        }
    }

    /// It is in force here, or why it cannot be.
    func adopted(_ number: Int, _ errors: [String]?) {
        if number == wanted { wanted = 0 }
        tellAdopted(number, errors)
        if errors == nil { return }
        // Others have agreed to what this node cannot do: it keeps what it has, says so, and tries again now and then.
        failed = number
        notBefore = control.loop.now + Self.retryInterval
    }

    private func tellAdopted(_ number: Int, _ errors: [String]?) {
        guard !hasLeft else { return }
        let word = errors.map { "\(number) \($0.prefix(5).joined(separator: "\n"))" } ?? "\(number)"
        ask([
            ["HSET", key("adopted"), control.nodeID.text, word], ["PEXPIRE", key("adopted"), "60000"],
            ["PUBLISH", Self.channel, "adopted \(number)"],
        ]) { _ in }
    }

    // MARK: Voting

    private func check(_ found: ConfigurationVersion?) {
        guard let found, !hasLeft else { return }
        lastVote = found.version
        control.board.ask(.check(version: found.version, text: found.text))
    }

    func checked(_ number: Int, _ errors: [String]?) {
        guard !hasLeft else { return }
        let vote = errors.map { $0.prefix(5).joined(separator: "\n") } ?? "ok"
        let commands = [
            ["HSET", key("votes:\(number)"), control.nodeID.text, vote],
            ["PEXPIRE", key("votes:\(number)"), "60000"],
            ["PUBLISH", Self.channel, "voted \(number)"],
        ]
        ask(commands) { [weak self] answer in
            guard case .failure(let failure) = answer else { return }
            self?.control.logger.warning(
                "this node's vote is lost",
                metadata: ["version": "\(number)", "reason": "\(failure)"])
        }
    }

    static let channel = "sluice:config"

    // MARK: Proposing

    /// Proposes a text to all nodes. What becomes of it shows in `rollout`.
    func push(_ text: String, by: String, note: String) -> Int? {
        guard !rollout.state.isUnderWay else { return nil }
        rollout = Rollout(ticket: rollout.ticket + 1, state: .proposing)
        number(after: highest) { [weak self] number in
            guard let self else { return }
            rollout.version = number
            propose(
                ConfigurationVersion(
                    version: number, at: SystemClock.wallMicroseconds(), by: by, note: note,
                    hash: Node.hash(of: text), text: text))
        }
        return rollout.ticket
    }

    /// A number that no version has had.
    private func number(after floor: Int, _ then: @escaping (Int) -> Void) {
        propose([["INCR", key("last")]]) { [weak self] reply in
            guard let self else { return }
            let number = Int(clamping: reply.integer(0) ?? 0)
            guard number <= floor else { return then(number) }
            // Two that do this at once get the same number, and only one of them a vote.
            propose([["SET", key("last"), "\(floor + 1)"]]) { _ in then(floor + 1) }
        }
    }

    /// A step of a proposal, which fails where Redis does not take it.
    private func propose(_ commands: [[String]], _ then: @escaping (Reply) -> Void) {
        ask(commands) { [weak self] answer in
            switch answer {
            case .success(let reply): then(reply)
            case .failure(let failure): self?.refuse([failure.description])
            }
        }
    }

    func rollBack(to number: Int, by: String) -> Int? {
        guard !rollout.state.isUnderWay else { return nil }
        let ticket = rollout.ticket + 1
        rollout = Rollout(ticket: ticket, state: .proposing)
        fetch(number) { [weak self] answer in
            guard let self else { return }
            guard case .success(let found?) = answer else {
                switch answer {
                case .success: refuse(["there is no version \(number)"])
                case .failure(let failure): refuse([failure.description])
                }
                return
            }
            rollout = Rollout(ticket: ticket - 1)
            _ = push(found.text, by: by, note: "rollback to \(number)")
        }
        return ticket
    }

    private func propose(_ proposed: ConfigurationVersion) {
        let number = proposed.version
        self.proposed = nil
        let end = control.loop.now + Self.ownTime
        propose([
            ["SET", key("proposal"), "\(number)", "NX", "PX", "\(Self.ownTime.milliseconds)"]
        ]) { [weak self] reply in
            guard let self else { return }
            guard reply.kind(0) == .status else {
                refuse(["another configuration is being voted on"])
                return
            }
            ownsUntil = end
            var commands = [
                ["HSET", key("versions"), "\(number)", proposed.json],
                ["HSET", key("history"), "\(number)", proposed.withoutText.json],
            ]
            let old = history.map(\.version).sorted().dropLast(Self.versionsMax).filter { $0 != self.version }
            if !old.isEmpty {
                for name in ["versions", "history"] { commands.append(["HDEL", key(name)] + old.map(String.init)) }
            }
            commands.append(["PUBLISH", Self.channel, "vote \(number)"])
            self.proposed = proposed.withoutText
            expected = Set(control.followers.map(\.text)).union([control.nodeID.text])
            gone = hasLeft ? [control.nodeID.text] : []
            expected.subtract(gone)
            rollout.state = .voting
            limitTimer?.schedule(after: Self.voteTime)
            propose(commands) { _ in }
        }
    }

    private func count() {
        let number = rollout.version
        propose([["HGETALL", key("votes:\(number)")]]) { [weak self] reply in
            guard let self, rollout.state == .voting, rollout.version == number else { return }
            var index = 1
            while index + 1 < reply.count {
                rollout.votes[reply.text(index)] = reply.text(index + 1)
                index += 2
            }
            let refusals = rollout.votes.filter { $0.value != "ok" && !gone.contains($0.key) }
            if !refusals.isEmpty {
                refuse(refusals.sorted { $0.key < $1.key }.map { "\($0.key): \($0.value)" })
            } else if expected.isSubset(of: Set(rollout.votes.keys)) {
                commit(number)
            }
        }
    }

    private func timeIsOver() {
        guard rollout.state == .voting else { return switchTimeIsOver() }
        let missing = expected.subtracting(rollout.votes.keys).sorted()
        refuse(["no vote in \(Self.voteTime) from \(missing.joined(separator: ", "))"])
    }

    private func commit(_ number: Int) {
        guard control.loop.now < ownsUntil else { return refuse(["the votes came too late"]) }
        limitTimer?.cancel()
        // No vote that comes now may do it again.
        rollout.state = .proposing
        let commands = [
            ["SET", key("current"), "\(number)"], ["DEL", key("proposal")],
            ["PUBLISH", Self.channel, "current \(number)"],
        ]
        ask(commands) { [weak self] answer in
            guard let self else { return }
            // Only what Redis refuses, or was never sent, is certainly not in force: it is noted, and makes room.
            if case .failure(let failure) = answer, failure.isRefusal || failure.isUnsent {
                refuse([failure.description])
                return
            }
            if case .failure = answer, let proposed { unsettled.append(Unsettled(proposed)) }
            unsettled = unsettled.suffix(Self.openMax)
            (proposed, ownsUntil) = (nil, MonotonicTime(nanoseconds: .min))
            if case .failure = answer { isUnknown(number) } else { isAgreed(number) }
        }
    }

    private func isAgreed(_ number: Int) {
        rollout.state = .switching
        control.logger.notice("all nodes agree to a configuration", metadata: ["version": "\(number)"])
        limitTimer?.schedule(after: Self.switchTime)
        readHistory()
        // Some may have been quicker than this answer.
        countAdopted()
    }

    private func isUnknown(_ number: Int) {
        rollout.state = .unknown
        rollout.errors = [
            "Redis did not answer when all had agreed: version \(number) may or may not be in force"
        ]
        control.logger.warning(
            "Redis did not answer when all had agreed to a configuration: it may or may not be in force",
            metadata: ["version": "\(number)"])
    }

    /// Redis says which version is in force: what became of those that it has given no answer for?
    private func settle(_ current: Int) {
        for index in unsettled.indices {
            let outcome = unsettled[index].outcome(current: current, at: control.loop.now)
            let (version, wasGivenUp) = (unsettled[index].version, unsettled[index].isGivenUp && outcome == .inForce)
            let number = version.version
            let isShown = rollout.version == number && (rollout.state == .unknown || rollout.state == .refused)
            switch outcome {
            case nil: continue
            case .inForce:
                if wasGivenUp { write(version) }
                guard isShown else { continue }
                rollout.errors = []
                isAgreed(number)
            case .overtaken:
                if isShown, rollout.state == .unknown {
                    rollout.errors = ["version \(current) is in force by now: whether \(number) was is not known"]
                }
            case .notInForce:
                let reason = "Redis did not answer when all had agreed, and has not taken it"
                note(version, reason)
                control.logger.warning(
                    "a configuration is refused: all nodes stay with theirs",
                    metadata: ["version": "\(number)", "reason": "\(reason)"])
                guard isShown else { continue }
                rollout.state = .refused
                rollout.errors = [reason]
            }
        }
        unsettled.removeAll { $0.version.version <= current }
    }

    // MARK: Nodes that end

    /// This node leaves the cluster, or another process takes its place: nobody waits for this one.
    func leave() {
        hasLeft = true
        waitNoMore(for: [control.nodeID.text])
    }

    /// Whom Redis lists: who is no more among them has said goodbye. Who has crashed still is.
    func listed(_ nodes: Set<String>) {
        guard rollout.state == .voting || rollout.state == .switching else { return }
        waitNoMore(for: expected.subtracting(nodes).subtracting([control.nodeID.text]))
    }

    private func waitNoMore(for nodes: Set<String>) {
        guard !expected.isDisjoint(with: nodes) else { return }
        gone.formUnion(nodes)
        expected.subtract(nodes)
        switch rollout.state {
        case .voting: count()
        case .switching: countAdopted()
        case .idle, .proposing, .switched, .refused, .unknown: break
        }
    }

    // MARK: Switching

    private func countAdopted() {
        let number = rollout.version
        ask([["HGETALL", key("adopted")]]) { [weak self] answer in
            guard let self, case .success(let reply) = answer, rollout.state == .switching,
                rollout.version == number
            else { return }
            var well: Set<String> = []
            var wrong: [String: String] = [:]
            var index = 1
            while index + 1 < reply.count {
                let words = reply.text(index + 1).split(separator: " ", maxSplits: 1)
                // A later one is in force only behind this one.
                if let heard = words.first.flatMap({ Int($0) }), heard >= number {
                    if words.count > 1 {
                        wrong[reply.text(index)] = String(words[1])
                    } else {
                        well.insert(reply.text(index))
                    }
                }
                index += 2
            }
            let nodes = expected.sorted()
            rollout.inForce = nodes.filter(well.contains)
            rollout.errors = nodes.compactMap { node in wrong[node].map { "\(node): \($0)" } }
            if rollout.inForce.count + rollout.errors.count == nodes.count { switched() }
        }
    }

    /// Those that are missing may have said so where this node could not hear it.
    private func switchTimeIsOver() {
        guard rollout.state == .switching else { return }
        let announced = control.members.filter { $0.info?.configuration == "\(rollout.version)" }.map(\.id.text)
        rollout.inForce = expected.intersection(rollout.inForce + announced).sorted()
        let silent = expected.subtracting(rollout.inForce).sorted().filter { node in
            !rollout.errors.contains { $0.hasPrefix("\(node): ") }
        }
        rollout.errors += silent.map { "\($0): has not said in \(Self.switchTime) that it has switched" }
        switched()
    }

    private func switched() {
        limitTimer?.cancel()
        rollout.state = .switched
        for error in rollout.errors {
            control.logger.warning(
                "a node has agreed to a configuration and does not go by it",
                metadata: ["version": "\(rollout.version)", "reason": "\(error)"])
        }
    }

    private func refuse(_ errors: [String]) {
        guard rollout.state == .proposing || rollout.state == .voting else { return }
        limitTimer?.cancel()
        rollout.errors = errors
        rollout.state = .refused
        let reason = errors.joined(separator: "; ")
        // What has got no number was never a version.
        var details: Logger.Metadata = ["reason": "\(reason)"]
        if rollout.version > 0 { details["version"] = "\(rollout.version)" }
        control.logger.warning("a configuration is refused: all nodes stay with theirs", metadata: details)
        noteRefusal(reason)
        // What was refused before it was this node's, or ran out, is another node's by now.
        guard control.loop.now < ownsUntil else { return }
        ownsUntil = MonotonicTime(nanoseconds: .min)
        ask([["DEL", key("proposal")]]) { _ in }
    }

    /// The history tells it from those that were in force.
    private func noteRefusal(_ reason: String) {
        guard let proposed else { return }
        self.proposed = nil
        note(proposed, reason)
    }

    private func note(_ version: ConfigurationVersion, _ reason: String) {
        var refused = version
        refused.refusal = String(reason.prefix(Self.refusalMax))
        write(refused)
    }

    private func write(_ entry: ConfigurationVersion) {
        unwritten.removeAll { $0.version == entry.version }
        unwritten.append(entry)
        unwritten = unwritten.suffix(Self.openMax)
        history = shown(history)
        writeRefusals()
    }

    /// Redis may have been out of reach when there was something to write: it is written when it is back.
    private func writeRefusals() {
        for entry in unwritten {
            ask([["HSET", key("history"), "\(entry.version)", entry.json]]) { [weak self] answer in
                if case .failure(let failure) = answer, !failure.isRefusal { return }
                self?.unwritten.removeAll { $0 == entry }
            }
        }
    }

    /// What Redis has, and above it what is still to be written there.
    private func shown(_ history: [ConfigurationVersion]) -> [ConfigurationVersion] {
        let own = Set(unwritten.map(\.version))
        return (history.filter { !own.contains($0.version) } + unwritten).sorted { $0.version > $1.version }
    }

    private func readHistory() {
        read(["HVALS", key("history")], \.historyRefusal) { [weak self] reply in
            guard let self, reply.kind(0) == .array else { return }
            history = shown((1..<max(1, reply.count)).compactMap { ConfigurationVersion(json: reply.bytes($0)) })
        }
    }
}
