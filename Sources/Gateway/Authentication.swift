// How callers prove who they are, as the workers of a node share it: immutable, made from the configuration.

import Configuration
import Credentials
import EventLoop
import HTTP1
import Identity
import LinuxIO
import Primitives
import RateLimiting
import RedisClient

final class Authentication: Sendable {
    /// What a service asks.
    struct Rule: Sendable {
        var mode: Configuration.AuthMode
        /// All of them are needed.
        var scopes: [String]
    }

    /// By service.
    let rules: [Rule]
    let takesTokens: Bool
    /// The name of the header with an API key, in lower case; empty: not by header.
    let keyHeader: [UInt8]
    /// Whether it is the one that the parser knows.
    let keyHeaderIsKnown: Bool
    /// The parameter of the query with one; empty: not by query.
    let keyParameter: [UInt8]
    /// The names that backends are told by, which nobody else may use, and that of the header with a key.
    let guarded: GuardedNames
    /// Whether no backend gets a key.
    let hidesKeys: Bool
    let service: CredentialService
    private let realm: String
    private let takesKeys: Bool

    init(_ configuration: Configuration, _ settings: Configuration.Auth, service: CredentialService) {
        self.service = service
        realm = settings.realm
        rules = configuration.services.map { service in
            Rule(mode: configuration.mode(of: service), scopes: service.auth.scopes)
        }
        takesTokens = !settings.jwt.isEmpty
        takesKeys = settings.apiKeys != nil
        let header = settings.apiKeys?.header ?? ""
        keyHeader = Array(header.utf8)
        keyHeaderIsKnown = header == "x-api-key"
        keyParameter = Array((settings.apiKeys?.query ?? "").utf8)
        hidesKeys = settings.apiKeys?.hideCredentials ?? false
        guarded = GuardedNames(Self.forward(settings).all + (hidesKeys && !header.isEmpty ? [header] : []))
    }

    static func forward(_ settings: Configuration.Auth) -> ForwardNames {
        let names = settings.forward
        return ForwardNames(user: names.user, org: names.org, tier: names.tier, key: names.key)
    }

    /// The service that looks at credentials.
    static func service(
        _ configuration: Configuration, _ settings: Configuration.Auth, redis: RedisTopology?, resolver: Resolver,
        id: String, failures: RedisFailureCounts, seed: UInt64
    ) throws(NodeStartError) -> CredentialService {
        do {
            return try CredentialService(
                CredentialSetup(
                    settings: settings, tiers: configuration.rateLimit?.tierNames ?? [], forward: forward(settings),
                    redis: redis, resolver: resolver, name: "sluice-\(id)-keys", failures: failures,
                    seed: seed))
        } catch {
            throw NodeStartError(description: "auth: \(error)")
        }
    }

    // MARK: Challenges

    /// The `WWW-Authenticate` lines of an answer (RFC 6750 §3): what this gateway takes, and what was wrong.
    func challenge(_ problem: CredentialProblem) -> [UInt8] {
        var lines = ""
        let details: String
        switch problem {
        case .missing: details = ""
        case .ambiguous: details = ", error=\"invalid_request\""
        case .invalid(let fault): details = ", error=\"invalid_token\", error_description=\"\(fault.description)\""
        case .insufficient(let service):
            let scopes = rules[service].scopes.joined(separator: " ")
            details = ", error=\"insufficient_scope\", scope=\"\(scopes)\""
        }
        let isOfKey = problem == .invalid(.unknownAPIKey)
        if takesTokens { lines += "WWW-Authenticate: Bearer realm=\"\(realm)\"\(isOfKey ? "" : details)\r\n" }
        if takesKeys {
            lines += "WWW-Authenticate: ApiKey realm=\"\(realm)\"\(isOfKey || !takesTokens ? details : "")\r\n"
        }
        return Array(lines.utf8)
    }
}

/// Why a request is not let in as the one who it is from.
enum CredentialProblem: Equatable {
    /// None was shown where one is needed.
    case missing
    /// More than one was shown (RFC 6750 §2): which of them counts, two readers may see differently.
    case ambiguous
    case invalid(CredentialFault)
    /// It is good, and does not reach so far; the number of the service.
    case insufficient(service: Int)

    var status: Int {
        switch self {
        case .missing, .invalid: 401
        case .ambiguous: 400
        case .insufficient: 403
        }
    }

    var title: StaticString {
        switch self {
        case .missing, .invalid: "Unauthorized"
        case .ambiguous: "Bad request"
        case .insufficient: "Forbidden"
        }
    }

    var code: StaticString {
        switch self {
        case .missing: "credentials-missing"
        case .ambiguous: "credentials-ambiguous"
        case .invalid(.unknownAPIKey): "invalid-api-key"
        case .invalid: "invalid-token"
        case .insufficient: "insufficient-scope"
        }
    }

    var detail: StaticString {
        switch self {
        case .missing: "this service wants to know who calls; WWW-Authenticate says how to tell it"
        case .ambiguous: "more than one credential was sent; send one"
        case .invalid(let fault): fault.description
        case .insufficient:
            "the credential does not grant what this service asks for; WWW-Authenticate names the scopes"
        }
    }
}

/// Carries a service's answers to the workers, and its notes to the log.
final class CredentialLine: CredentialListener {
    private let workers: [Mailbox<WorkerMessage>]
    private let control: Mailbox<ControlMessage>

    init(_ workers: [Mailbox<WorkerMessage>], _ control: Mailbox<ControlMessage>) {
        self.workers = workers
        self.control = control
    }

    func credentialAnswered(_ answer: CredentialAnswer, worker: Int) {
        guard workers.indices.contains(worker) else { return }
        workers[worker].post(.credential(answer))
    }

    func credentialsChanged(_ which: CredentialChange) {
        for worker in workers { worker.post(.forgetCredentials(which)) }
    }

    func credentialNote(_ message: String, _ fields: [String: String]) { control.post(.note(message, fields)) }
    func credentialNews(_ message: String, _ fields: [String: String]) { control.post(.news(message, fields)) }
}
