// `sluice backends` and `sluice nodes`: what a node knows of the cluster, and an operator's word about a backend.

import Admin
import ArgumentParser
import Configuration
import FoundationEssentials
import Health
import LinuxIO
import Membership
import Primitives

struct Backends: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Show the backends, or say a word that stands above their probes.",
        discussion: """
            Asks the admin listener of one node, which knows the view of all. Default: 127.0.0.1:9901.
            With --redis, or --config of nodes that have no admin listener, Redis itself is asked.
            A word is kept in Redis, holds on every node and survives restarts, until it is taken back.
            """,
        subcommands: [List.self, Drain.self, Undrain.self, Down.self, Up.self],
        defaultSubcommand: List.self)

    struct List: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Show the backends (the default).")

        @OptionGroup var options: SharedOptions
        @Option(help: "Only of this service.") var service: String?

        func run() throws {
            let listing: BackendListing
            switch try options.way() {
            case .admin(let client):
                let body = try asked(client, "GET", "/api/backends")
                if options.admin.json {
                    print(String(decoding: body, as: UTF8.self), terminator: "")
                    return
                }
                listing = try decoded(BackendListing.self, body)
            case .redis(let view):
                listing = try told { try view.listing(service: service) }
                if options.admin.json {
                    try printJSON(listing)
                    return
                }
            }
            let rows = listing.backends.filter { service == nil || $0.service == service }
            print(table([Self.heads] + rows.map(Self.cells)))
        }

        private static let heads = [
            "SERVICE", "BACKEND", "STATE", "SINCE", "SAID BY", "VOTES", "BREAKER", "IN FLIGHT", "LAST ERROR", "REASON",
        ]

        private static func cells(_ row: BackendListing.Row) -> [String] {
            let down = row.votes.count { $0.value == "down" }
            let state =
                row.available == (row.state == "up")
                ? row.state : "\(row.state), \(row.available ? "used" : "not used") here"
            let inFlight = row.inFlight.map { own in row.clusterInFlight.map { "\(own) of \($0)" } ?? "\(own)" }
            return [
                row.service, row.url, state, row.since,
                row.operator.map { "\($0.word) by \($0.by)" }
                    ?? (row.saidBy.isEmpty ? "-" : row.saidBy.joined(separator: ",")),
                "\(down)/\(row.votes.count) down", row.breaker, inFlight ?? "-", row.lastError ?? "-", row.reason,
            ]
        }
    }

    struct Target: ParsableArguments {
        @OptionGroup var options: SharedOptions
        @Argument(help: "The backend's URL.") var url: String
        @Option(help: "Only of this service. Default: every service that has it.") var service: String?

        func say(_ word: OperatorWord.Word) throws {
            let environment = ProcessInfo.processInfo.environment
            let user = environment["SUDO_USER"] ?? environment["USER"] ?? environment["LOGNAME"] ?? "somebody"
            let by = "\(user)@\(HostNames.local())"
            let said: Said
            switch try options.way() {
            case .admin(let client):
                var target = "/api/backends/\(word.rawValue)?url=\(escaped(url))&by=\(escaped(by))"
                if let service { target += "&service=\(escaped(service))" }
                let body = try asked(client, "POST", target)
                if options.admin.json {
                    print(String(decoding: body, as: UTF8.self), terminator: "")
                    return
                }
                said = try decoded(Said.self, body)
            case .redis(let view):
                let keys = try told { try view.say(word, of: url, service: service, by: by) }
                said = Said(services: keys.map(\.service), url: keys.first?.url)
            }
            let services = said.services.joined(separator: ", ")
            print("\(said.url ?? url) of \(services): \(word == .auto ? "undrain" : word.rawValue)")
        }

        private struct Said: Decodable {
            var services: [String]
            /// Nodes of before do not say it.
            var url: String?
        }
    }

    struct Drain: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Send it no new requests; those under way end in peace.")
        @OptionGroup var target: Target
        func run() throws { try target.say(.drain) }
    }

    struct Undrain: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Take back whatever was said of it: probes and traffic decide again.")
        @OptionGroup var target: Target
        func run() throws { try target.say(.auto) }
    }

    struct Down: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Hold it down, whatever its probes say.")
        @OptionGroup var target: Target
        func run() throws { try target.say(.down) }
    }

    struct Up: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Hold it up, whatever its probes say.")
        @OptionGroup var target: Target
        func run() throws { try target.say(.up) }
    }
}

/// Whom to ask: a node, or Redis itself.
struct SharedOptions: ParsableArguments {
    enum Way {
        case admin(AdminClient)
        case redis(SharedView)
    }

    @OptionGroup var admin: AdminOptions

    @Option(
        help: ArgumentHelp(
            "Ask Redis itself, and no node. Services are those of --config, or of the version in force where it follows the cluster's; or the one of --service.",
            valueName: "url"))
    var redis: String?

    func way() throws -> Way {
        if let redis {
            let url: RedisURL
            do throws(Invalid) { url = try RedisURL(parsing: redis) } catch {
                throw ValidationError("--redis: \(error)")
            }
            return .redis(SharedView(session: try session(url), configuration: try Limits.loaded(admin.config, [])))
        }
        if admin.admin == nil, let configuration = try admin.configuration(), configuration.gateway.admin == nil {
            guard let url = configuration.rateLimit?.redisURL else {
                throw ValidationError(
                    "\(admin.config ?? "") has neither gateway.admin nor rateLimit.redisURL: give --admin HOST:PORT")
            }
            return .redis(SharedView(session: try session(url), configuration: try Limits.loaded(admin.config, [])))
        }
        return .admin(try admin.client())
    }

    private func session(_ url: RedisURL) throws -> RedisSession {
        try told { try RedisSession(url, transactions: true) }
    }
}

struct Nodes: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Show the nodes of the cluster that run.",
        discussion: """
            Asks the admin listener of one node. Default: 127.0.0.1:9901.
            With --redis, or --config of nodes that have no admin listener, Redis itself is asked.
            """)

    @OptionGroup var options: SharedOptions

    private struct Listing: Codable {
        struct Row: Codable {
            var id: String
            var address: String
            var lastSeen: String
            /// Only nodes tell who is cut off from Redis.
            var state: String?
            var configuration: String?
        }
        var nodes: [Row]
    }

    func run() throws {
        let listing: Listing
        switch try options.way() {
        case .admin(let client):
            let body = try asked(client, "GET", "/api/nodes")
            if options.admin.json {
                print(String(decoding: body, as: UTF8.self), terminator: "")
                return
            }
            listing = try decoded(Listing.self, body)
        case .redis(let view):
            listing = Listing(
                nodes: try told { try view.members() }.filter(\.isAlive).map { member in
                    Listing.Row(
                        id: member.id.text, address: member.info?.address ?? "",
                        lastSeen: SystemClock.timestamp(microseconds: member.lastSeen.microseconds))
                })
            if options.admin.json {
                try printJSON(listing)
                return
            }
        }
        print(
            table(
                [["NODE", "ADDRESS", "STATE", "LAST SEEN", "CONFIGURATION"]]
                    + listing.nodes.map {
                        [
                            $0.id, $0.address, $0.state == "cutOff" ? "cut off from Redis" : "alive", $0.lastSeen,
                            $0.configuration ?? "-",
                        ]
                    }))
    }
}

/// The answer, or a line on standard error and exit code 1.
func asked(
    _ options: AdminOptions, _ method: String, _ target: String, body: [UInt8] = [],
    within patience: TimeSpan = AdminClient.timeout
) throws -> [UInt8] {
    try asked(try options.client(), method, target, body: body, within: patience)
}

private func asked(
    _ client: AdminClient, _ method: String, _ target: String, body: [UInt8] = [],
    within patience: TimeSpan = AdminClient.timeout
) throws -> [UInt8] {
    try told { try client.ask(method, target, body: body, within: patience) }
}

func printJSON(_ value: some Encodable) throws {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    print(String(decoding: try encoder.encode(value), as: UTF8.self))
}

@discardableResult
func told<Value>(_ body: () throws -> Value) throws -> Value {
    do {
        return try body()
    } catch {
        printError("sluice: \(error)")
        throw ExitCode(1)
    }
}

func decoded<T: Decodable>(_ type: T.Type, _ body: [UInt8]) throws -> T {
    do {
        return try JSONDecoder().decode(type, from: Data(body))
    } catch {
        printError("sluice: the node's answer is of another shape: is it of another version?")
        throw ExitCode(1)
    }
}

/// A text as the value of a query's parameter (RFC 3986 §2.1).
func escaped(_ text: String) -> String {
    var result = ""
    for byte in text.utf8 {
        switch byte {
        case 0x30...0x39, 0x41...0x5a, 0x61...0x7a: result.unicodeScalars.append(Unicode.Scalar(byte))
        default: result += "%" + (byte < 16 ? "0" : "") + String(byte, radix: 16)
        }
    }
    return result
}
