// Looks at the credentials that no worker remembers: on a thread of its own, with the keys that change and the line to
// Redis. Workers ask by mailbox and are told by mailbox; a request waits meanwhile, and its worker does not.
//
// One thread: a signature takes 20 to 150 µs, and a token is looked at once in its life. Who sends made-up tokens finds a
// queue of bounded length and gets 503 from its end; requests whose token is remembered notice nothing.

package import Configuration
package import EventLoop
import FoundationEssentials
import Hiredis
package import Identity
package import LinuxIO
package import Primitives
package import RedisClient
import Synchronization

package struct CredentialQuestion: Sendable {
    package var worker: Int
    package var kind: CredentialKind
    package var digest: CredentialDigest
    package var bytes: [UInt8]

    package init(worker: Int, kind: CredentialKind, digest: CredentialDigest, bytes: [UInt8]) {
        self.worker = worker
        self.kind = kind
        self.digest = digest
        self.bytes = bytes
    }
}

package struct CredentialAnswer: Sendable {
    package var digest: CredentialDigest
    package var outcome: CredentialOutcome
    /// How long it may be remembered.
    package var until: MonotonicTime
}

/// What a service tells others. Called on its thread.
package protocol CredentialListener: AnyObject, Sendable {
    func credentialAnswered(_ answer: CredentialAnswer, worker: Int)
    /// What was answered before of these holds no more.
    func credentialsChanged(_ which: CredentialChange)
    /// For the log: what is wrong, and what has gone as it should.
    func credentialNote(_ message: String, _ fields: [String: String])
    func credentialNews(_ message: String, _ fields: [String: String])
}

package struct CredentialSetup: Sendable {
    package var settings: Configuration.Auth
    /// Names of tiers in the order of their numbers.
    package var tiers: [String]
    package var forward: ForwardNames
    /// Where keys are; `nil`: in the file alone.
    package var redis: RedisTopology?
    package var resolver: Resolver
    /// Shown by `CLIENT LIST`.
    package var name: String
    package var failures: RedisFailureCounts
    package var seed: UInt64

    package init(
        settings: Configuration.Auth, tiers: [String], forward: ForwardNames, redis: RedisTopology?,
        resolver: Resolver, name: String, failures: RedisFailureCounts, seed: UInt64
    ) {
        self.settings = settings
        self.tiers = tiers
        self.forward = forward
        self.redis = redis
        self.resolver = resolver
        self.name = name
        self.failures = failures
        self.seed = seed
    }
}

/// The side that others see.
package final class CredentialService: Sendable {
    fileprivate let setup: CredentialSetup
    fileprivate let verifier: TokenVerifier
    fileprivate let mailbox: Mailbox<Message>
    private let waker: Waker
    /// Questions that are not answered yet.
    fileprivate let waiting = Atomic<Int>(0)

    fileprivate enum Message: Sendable {
        case question(CredentialQuestion)
        case stop
    }

    /// A second of signatures. Who comes later is told that nobody can tell.
    package static let waitingMax = 4_096

    /// Reads the keys.
    ///
    /// - Throws: `KeyError`, or what the system says.
    package init(_ setup: CredentialSetup) throws {
        self.setup = setup
        verifier = try TokenVerifier(setup.settings.jwt, read: { try keyFile($0) })
        waker = try Waker()
        mailbox = Mailbox(waker: waker)
    }

    /// Runs until `stop`, on a thread of its own.
    package func start(_ listener: any CredentialListener) -> OSThread {
        OSThread(name: "credentials") { [self] in
            do {
                let loop = try Loop(waker: waker)
                let desk = CredentialDesk(self, loop: loop, listener: listener)
                desk.start()
                loop.run()
                desk.close()
            } catch {
                listener.credentialNote("credentials are not looked at", ["reason": "\(error)"])
            }
        }
    }

    /// Asks; `false` where too many wait already.
    package func ask(_ question: CredentialQuestion) -> Bool {
        guard waiting.load(ordering: .relaxed) < Self.waitingMax else { return false }
        waiting.add(1, ordering: .relaxed)
        mailbox.post(.question(question))
        return true
    }

    /// Whether a node could start with these keys.
    ///
    /// - Returns: the keys of a set that it would leave out, and why.
    /// - Throws: `KeyError`.
    package static func check(_ issuer: Configuration.TokenIssuer) throws -> [String] {
        try TokenVerifier([issuer], read: { try keyFile($0) }).ignored
    }

    package func stop() { mailbox.post(.stop) }
}

/// The contents of a file with keys.
///
/// - Throws: `KeyError`.
private func keyFile(_ path: String) throws -> [UInt8] {
    guard let data = try? Data(contentsOf: URL(filePath: path)) else {
        throw KeyError(description: "\(path) cannot be read; give the path of a file that this user may read")
    }
    guard data.count <= SigningKeys.fileBytesMax else { throw KeyError(description: "\(path) is too large") }
    return Array(data)
}

/// The side on the thread.
private final class CredentialDesk: WakeHandler, RedisRequester, RedisObserver {
    private let service: CredentialService
    private let loop: Loop
    private let listener: any CredentialListener
    private var verifier: TokenVerifier
    /// The files of keys as they were read last.
    private var files: [String: [UInt8]] = [:]
    private var fileTimer: LoopTimer!
    /// What was said last of files that cannot be used.
    private var complaint: String?

    /// By their hashes.
    private let fileKeys: [String: APIKeyRecord]
    private var directory = KeyDirectory()
    private var finder: RedisFinder?
    private var commands: RedisConnection?
    private var news: RedisConnection?
    private var hearsNews = false
    /// Why news cannot be heard, and keys not be read, as the log has it.
    private var newsFailure: RedisFailure?
    private var readFailure: RedisFailure?
    private var isOnCluster = false
    private var asking = KeyQuestions<CredentialQuestion>()
    /// Keys that Redis was asked for, by the number of the question.
    private var hashes: [UInt64: String] = [:]
    private var nextToken: UInt64 = 0

    /// How soon a changed file of keys counts.
    private static let filePause = TimeSpan.seconds(2)
    /// The longest that a verified token is remembered: its end is on the wall clock, which may be set.
    private static let tokenMemory = TimeSpan.seconds(3_600)
    /// A refused one. Short, since it costs next to nothing to look again.
    private static let faultMemory = TimeSpan.seconds(5)

    init(_ service: CredentialService, loop: Loop, listener: any CredentialListener) {
        self.service = service
        self.loop = loop
        self.listener = listener
        verifier = service.verifier
        var keys: [String: APIKeyRecord] = [:]
        for key in service.setup.settings.apiKeys?.keys ?? [] {
            keys[key.hash] = APIKeyRecord(
                name: key.name, user: key.user, org: key.org, tier: key.tier, scopes: key.scopes)
        }
        fileKeys = keys
        fileTimer = LoopTimer(loop) { [weak self] in self?.lookAtFiles() }
        loop.addWakeHandler(self)
    }

    func start() {
        for path in verifier.files { files[path] = try? keyFile(path) }
        if !verifier.files.isEmpty { fileTimer.schedule(after: Self.filePause) }
        noteKeys()
        guard service.setup.settings.apiKeys?.redis == true, let topology = service.setup.redis else { return }
        let setup = service.setup
        isOnCluster = topology.isCluster
        let finder = RedisFinder(
            topology, key: APIKeys.redisKey(onCluster: isOnCluster), name: "\(setup.name)-finder", loop: loop,
            resolver: setup.resolver, seed: setup.seed)
        self.finder = finder
        let commands = finder.connection(name: setup.name, seed: setup.seed, observer: self)
        let news = finder.connection(
            name: "\(setup.name)-news", channels: [APIKeys.redisKey], seed: setup.seed &+ 1, observer: self)
        self.commands = commands
        self.news = news
        commands.start()
        news.start()
    }

    func close() {
        fileTimer.cancel()
        commands?.close()
        news?.close()
        finder?.close()
    }

    // MARK: Questions

    func woken() {
        for message in service.mailbox.take() {
            switch message {
            case .question(let question): look(question)
            case .stop: loop.stop()
            }
        }
    }

    private func look(_ question: CredentialQuestion) {
        loop.updateTime()
        switch question.kind {
        case .token: lookAtToken(question)
        case .apiKey: lookAtKey(question)
        }
    }

    private func lookAtToken(_ question: CredentialQuestion) {
        let wall = SystemClock.wallMicroseconds() / 1_000_000
        switch verifier.verify(question.bytes, now: wall) {
        case .verified(let claims, let until):
            let left = until.map { TimeSpan.seconds($0 - wall) } ?? Self.tokenMemory
            answer(question, .verified(caller(claims)), for: min(left, Self.tokenMemory))
        case .refused(let fault, let retryAt):
            let wait = retryAt.map { TimeSpan.seconds($0 - wall) } ?? Self.faultMemory
            answer(question, .refused(fault), for: min(wait, Self.faultMemory))
        }
    }

    private func caller(_ claims: CallerClaims) -> Caller {
        Caller(claims, tiers: service.setup.tiers, forward: service.setup.forward)
    }

    private func answer(_ question: CredentialQuestion, _ outcome: CredentialOutcome, for time: TimeSpan) {
        service.waiting.subtract(1, ordering: .relaxed)
        let answer = CredentialAnswer(digest: question.digest, outcome: outcome, until: loop.now + time)
        listener.credentialAnswered(answer, worker: question.worker)
    }

    // MARK: API keys

    private func lookAtKey(_ question: CredentialQuestion) {
        let hash = APIKeys.hash(question.bytes)
        if let record = fileKeys[hash] {
            answer(question, outcome(hash, record), for: Self.tokenMemory)
            return
        }
        guard let commands else {
            answer(question, .refused(.unknownAPIKey), for: Self.faultMemory)
            return
        }
        switch directory.look(hash, at: loop.now) {
        case .known(let record): answer(question, outcome(hash, record), for: KeyDirectory.freshness)
        case .absent: answer(question, .refused(.unknownAPIKey), for: Self.faultMemory)
        case .ask(let known):
            guard asking.isAsked(hash) || commands.isReady else {
                answerWithout(question, hash, known)
                return
            }
            if asking.add(question, hash) { ask(commands, hash) }
        }
    }

    private func ask(_ commands: RedisConnection, _ hash: String) {
        nextToken += 1
        hashes[nextToken] = hash
        commands.write { writer in
            writer.add("HGET")
            writer.add(APIKeys.redisKey(onCluster: isOnCluster))
            writer.add(hash)
        }
        commands.sendCommand(self, token: nextToken)
    }

    private func outcome(_ hash: String, _ record: APIKeyRecord) -> CredentialOutcome {
        guard let claims = record.claims(id: APIKeys.id(ofHash: hash)) else { return .refused(.unusableClaim) }
        return .verified(caller(claims))
    }

    /// Redis is gone: keys that were known go on, and of others nobody can tell.
    private func answerWithout(_ question: CredentialQuestion, _ hash: String, _ known: APIKeyRecord?) {
        if let known {
            answer(question, outcome(hash, known), for: KeyDirectory.freshness)
        } else {
            answer(question, .unavailable, for: .zero)
        }
    }

    func redisReplied(_ reply: Reply, token: UInt64) {
        guard let hash = hashes.removeValue(forKey: token) else { return }
        guard let questions = asking.answered(hash) else {
            if let commands, commands.isReady { ask(commands, hash) } else { failed(hash, asking.failed(hash)) }
            return
        }
        switch reply.kind(0) {
        case .bulk:
            readFailure = nil
            let record = APIKeyRecord(json: reply.text(0))
            if record == nil {
                listener.credentialNote(
                    "an API key in Redis cannot be read", ["key": APIKeys.id(ofHash: hash), "remedy": "revoke it"])
            }
            directory.learn(hash, record, at: loop.now)
            for question in questions {
                if let record {
                    answer(question, outcome(hash, record), for: KeyDirectory.freshness)
                } else {
                    answer(question, .refused(.unknownAPIKey), for: Self.faultMemory)
                }
            }
        case .null:
            readFailure = nil
            directory.learn(hash, nil, at: loop.now)
            for question in questions { answer(question, .refused(.unknownAPIKey), for: Self.faultMemory) }
        case .status, .error, .integer, .array: failed(hash, questions)
        }
    }

    func redisFailed(_ failure: RedisFailure, token: UInt64) {
        guard let hash = hashes.removeValue(forKey: token) else { return }
        if case .refused = failure { service.setup.failures.count(failure.cause) }
        if case .refused = failure, readFailure != failure {
            readFailure = failure
            let user = service.setup.redis?.user
            listener.credentialNote(
                "API keys cannot be read: those in use go on",
                ["reason": "\(failure)", "remedy": failure.remedy(user: user)])
        }
        failed(hash, asking.failed(hash))
    }

    private func failed(_ hash: String, _ questions: [CredentialQuestion]) {
        var known: APIKeyRecord?
        if case .ask(let record) = directory.look(hash, at: loop.now) { known = record }
        for question in questions { answerWithout(question, hash, known) }
    }

    // MARK: Redis

    func redisReady(_ connection: RedisConnection, sample: ServerTimeSample) {}

    func redisSubscribed(_ connection: RedisConnection) {
        hearsNews = true
        newsFailure = nil
        // What changed while nobody listened is not known.
        doubtKeys()
    }

    private func doubtKeys() {
        directory.doubtAll(at: loop.now)
        asking.doubtAll()
        listener.credentialsChanged(.keys)
    }

    func redisLost(_ connection: RedisConnection, _ failure: RedisFailure) {
        if connection === news, failure.isOfNews, newsFailure != failure {
            newsFailure = failure
            service.setup.failures.count(failure.cause)
            let user = service.setup.redis?.user
            listener.credentialNote(
                "API keys: news of them are not heard; one that is revoked is refused after 10 s",
                ["reason": "\(failure)", "remedy": failure.remedy(user: user)])
        }
        guard connection === news, hearsNews else { return }
        hearsNews = false
        listener.credentialNote(
            "API keys: Redis is out of reach; keys in use go on", ["reason": "\(failure)"])
    }

    func redisMessage(_ connection: RedisConnection, channel: String, payload: String) {
        guard payload != "*" else { return doubtKeys() }
        directory.forget(payload)
        asking.doubt(payload)
        listener.credentialsChanged(.key(id: APIKeys.id(ofHash: payload)))
    }

    // MARK: Files

    /// What is to be known of the keys that count now.
    private func noteKeys() {
        for reason in verifier.ignored {
            listener.credentialNote("a signing key cannot be used and is ignored", ["reason": reason])
        }
        let files = verifier.withdrawn
        guard !files.isEmpty else { return }
        listener.credentialNote(
            "sets of signing keys are empty: each token of their issuers is refused",
            ["files": files.joined(separator: " ")])
    }

    private func lookAtFiles() {
        fileTimer.schedule(after: Self.filePause)
        var latest: [String: [UInt8]] = [:]
        for path in verifier.files {
            do {
                latest[path] = try keyFile(path)
            } catch {
                complain("\(error)")
                return
            }
        }
        guard latest != files else {
            complaint = nil
            return
        }
        do {
            verifier = try TokenVerifier(service.setup.settings.jwt, read: { latest[$0] ?? [] })
        } catch {
            // A file that is only half written is whole at the next look.
            complain("\(error)")
            return
        }
        files = latest
        complaint = nil
        listener.credentialNews("signing keys read anew", ["files": latest.keys.sorted().joined(separator: " ")])
        noteKeys()
        listener.credentialsChanged(.all)
    }

    private func complain(_ reason: String) {
        guard complaint != reason else { return }
        complaint = reason
        listener.credentialNote("signing keys stay as they were", ["reason": reason])
    }
}
