// `sluice keys`: API keys in Redis, or entries for the file. Redis keeps their hashes; a key is shown once, when it is made.

import ArgumentParser
import Configuration
import Credentials
import EventLoop
import FoundationEssentials
import Gateway
import LinuxIO
import Primitives
import RedisClient

struct Keys: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Make, show and revoke API keys.",
        discussion: """
            Keys are in the hash sluice:keys of Redis, by their SHA-256; `auth: {apiKeys: {redis: true}}` makes nodes look \
            there. A revoked key is refused as soon as nodes hear of it, and after 10 seconds at the latest.
            """,
        subcommands: [Add.self, List.self, Revoke.self], defaultSubcommand: List.self)

    struct Place: ParsableArguments {
        @Option(help: ArgumentHelp("Where Redis is, as rateLimit.redisURL says it.", valueName: "url"))
        var redis: String?

        @Option(name: .shortAndLong, help: "A node's configuration, for its rateLimit.redisURL.")
        var config: String?

        func store() throws -> KeyStore {
            guard let url = try url() else { throw ValidationError("the configuration has no rateLimit.redisURL") }
            return try told {
                try KeyStore(try topology(of: url), resolver: Resolver(), seed: SystemClock.random64())
            }
        }

        private func url() throws -> RedisURL? {
            if let redis { return try given("--redis", redis) { text throws(Invalid) in try RedisURL(parsing: text) } }
            guard let config else { throw ValidationError("say where Redis is: --redis URL or --config FILE") }
            let environment = ProcessInfo.processInfo.environment
            return try told { try Configuration.load(path: config, environment: environment).rateLimit?.redisURL }
        }
    }

    struct Add: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Make a key and show it, this once.",
            discussion: "With --file nothing is stored: an entry for auth.apiKeys.keys is printed.")

        @OptionGroup var place: Place
        @Flag(help: "Print an entry for the configuration file.") var file = false
        @Option(help: "The user that it stands for.") var user: String?
        @Option(help: "The organisation.") var org: String?
        @Option(help: "The tier, as policies name it.") var tier: String?
        @Option(help: "A scope that it grants; may be repeated.") var scope: [String] = []
        @Flag(help: "Print JSON.") var json = false
        @Argument(help: "What it is for, for people.") var name: String

        private struct Made: Encodable {
            var id: String
            var key: String
            var hash: String
        }

        func run() throws {
            try checkTexts()
            let key = APIKeys.make((0..<4).map { _ in SystemClock.random64() })
            let hash = APIKeys.hash(Array(key.utf8))
            let record = APIKeyRecord(
                name: name, user: user, org: org, tier: tier, scopes: scope.isEmpty ? nil : scope,
                created: SystemClock.timestamp(microseconds: SystemClock.wallMicroseconds()))
            guard record.claims(id: APIKeys.id(ofHash: hash)) != nil else {
                throw ValidationError(
                    "user and org stand in headers: 1 to 256 bytes without controls, and no blank at either end")
            }
            if file {
                print("- \(entry(hash))")
            } else {
                try reported { try place.store().add(hash, record) }
            }
            let id = APIKeys.id(ofHash: hash)
            if json {
                print(String(decoding: try JSONEncoder().encode(Made(id: id, key: key, hash: hash)), as: UTF8.self))
            } else {
                printError("key \(id), which is shown this once:")
                print(key)
            }
        }

        /// By the file's own rules, before there is a key: one that no service or policy can ask for helps nobody. Redis
        /// alone also takes users and organisations that are not plain ASCII, as tokens may name them.
        private func checkTexts() throws {
            try given("the name", name) { text throws(Invalid) in try Configuration.APIKey.checkName(text) }
            if let tier {
                try given("--tier", tier) { text throws(Invalid) in try Configuration.APIKey.checkName(text) }
            }
            for scope in scope {
                try given("--scope", scope) { text throws(Invalid) in try Configuration.APIKey.checkScope(text) }
            }
            guard scope.count <= Configuration.APIKey.scopesMax else {
                throw refusal("--scope: \(scope.count) of them; at most \(Configuration.APIKey.scopesMax)")
            }
            guard file else { return }
            for (option, text) in [("--user", user), ("--org", org)] {
                guard let text else { continue }
                try given(option, text) { text throws(Invalid) in try Configuration.APIKey.checkIdentity(text) }
            }
        }

        private func entry(_ hash: String) -> String {
            // A `$` would begin a variable in the file.
            func quoted(_ text: String) -> String {
                "\""
                    + text.replacing("\\", with: "\\\\").replacing("\"", with: "\\\"").replacing("$", with: "$$")
                    + "\""
            }
            var parts = ["name: \(quoted(name))", "hash: \"sha256:\(hash)\""]
            for (key, value) in [("user", user), ("org", org), ("tier", tier)] {
                if let value { parts.append("\(key): \(quoted(value))") }
            }
            if !scope.isEmpty { parts.append("scopes: [\(scope.map(quoted).joined(separator: ", "))]") }
            return "{\(parts.joined(separator: ", "))}"
        }
    }

    struct List: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Show the keys in Redis (the default).")

        @OptionGroup var place: Place
        @Flag(help: "Print JSON.") var json = false

        private struct Row: Encodable {
            var id: String
            var hash: String
            var record: APIKeyRecord?
        }

        func run() throws {
            let entries = try reported { try place.store().list() }
            if json {
                let encoder = JSONEncoder()
                encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
                let rows = entries.map { Row(id: $0.id, hash: $0.hash, record: $0.record) }
                print(String(decoding: try encoder.encode(["keys": rows]), as: UTF8.self))
                return
            }
            var rows = [["ID", "NAME", "USER", "ORG", "TIER", "SCOPES", "CREATED"]]
            for entry in entries {
                guard let record = entry.record else {
                    rows.append([entry.id, "(cannot be read)"])
                    continue
                }
                let scopes = record.scopes?.joined(separator: " ")
                rows.append(
                    [entry.id]
                        + [record.name, record.user, record.org, record.tier, scopes, record.created].map { shown($0) })
            }
            print(table(rows))
        }

        /// What others wrote into Redis must not reach the terminal as commands to it.
        private func shown(_ text: String?) -> String {
            guard let text, !text.isEmpty else { return "-" }
            return String(text.unicodeScalars.map { $0.value < 0x20 || $0.value == 0x7f ? "?" : Character($0) })
        }
    }

    struct Revoke: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Revoke a key, by its id, its hash or its name.")

        @OptionGroup var place: Place
        @Argument(help: "What `sluice keys list` shows.") var key: String

        func run() throws {
            let store = try reported { try place.store() }
            let entries = try reported { try store.list() }
            let found = entries.filter { $0.id == key || $0.hash == key || $0.record?.name == key }
            guard let entry = found.first else {
                printError("sluice: no key has the id, the hash or the name \(key)")
                throw ExitCode(1)
            }
            guard found.count == 1 else {
                let ids = found.map(\.id).joined(separator: ", ")
                printError("sluice: \(found.count) keys have the name \(key); give one's id: \(ids)")
                throw ExitCode(1)
            }
            guard try reported({ try store.revoke(entry.hash) }) else {
                printError("sluice: somebody else was faster: \(key) is gone already")
                throw ExitCode(1)
            }
            print("revoked \(entry.id) (\(entry.record?.name ?? "cannot be read"))")
        }
    }
}

/// Says what went wrong on standard error.
private func reported<T>(_ body: () throws -> T) throws -> T {
    do {
        return try body()
    } catch let error as KeyStoreError {
        printError("sluice: \(error)")
        throw ExitCode(1)
    }
}
