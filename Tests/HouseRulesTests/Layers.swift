// The layers: which module may import which.

/// From the bottom up. A module imports only what stands before it; modules of one layer do not import each other,
/// except where `beside` says so.
let layers: [[String]] = [
    ["Primitives"],
    ["LinuxIO"],
    ["HTTP1", "Hiredis", "TLS", "Compression", "ProxyProtocol", "Transforms", "Tracing"],
    ["EventLoop"],
    ["RedisClient", "Supervision"],
    ["Balancing", "Identity", "Configuration"],
    ["RateLimiting", "Health", "Membership", "Credentials"],
    ["Gateway"],
    ["Admin"],
    ["sluice"],
]

/// Imports within a layer: health is what the live members say.
let beside: [String: Set<String>] = ["Health": ["Membership"]]

/// What is not ours, and who may use it.
let foreign: [String: Set<String>] = [
    "Glibc": ["LinuxIO", "Hiredis"],
    "CLinux": ["LinuxIO"],
    "CHiredis": ["Hiredis"],
    "COpenSSL": ["TLS"],
    "CZlib": ["Compression"],
    // Atomics and locks of the standard library, where threads meet.
    "Synchronization": [
        "LinuxIO", "TLS", "EventLoop", "RedisClient", "Supervision", "Balancing", "RateLimiting", "Credentials",
        "Gateway",
    ],
    "Yams": ["Configuration"],
    "Foundation": ["Configuration"],
    "FoundationEssentials": ["Configuration", "Health", "Membership", "Credentials", "Admin", "sluice"],
    // Signatures and digests of credentials, off the data path.
    "JWTKit": ["Credentials"],
    "Crypto": ["Credentials"],
    "ArgumentParser": ["sluice"],
    "Logging": ["Gateway", "sluice"],
]

/// The module that a line imports.
func importedModule(_ line: String) -> String? {
    var words = line.split(separator: " ")
    while let first = words.first,
        ["package", "public", "private", "internal", "fileprivate", "@testable"].contains(first)
    {
        words.removeFirst()
    }
    guard words.first == "import", words.count >= 2 else { return nil }
    return words.last.map { String($0.prefix { $0 != "." }) }
}

let layerRule = Rule(
    description: "nothing imports upwards",
    check: { file in
        var level: [String: Int] = [:]
        for (index, layer) in layers.enumerated() { for module in layer { level[module] = index } }
        guard let own = level[file.module] else {
            return [
                Breach(path: file.path, line: 1, reason: "\(file.module) is in no layer: give it one in Layers.swift")
            ]
        }
        var breaches: [Breach] = []
        for (index, line) in file.code.enumerated() {
            guard let module = importedModule(line) else { continue }
            let reason: String?
            if let other = level[module] {
                let allowed = other < own || beside[file.module]?.contains(module) ?? false
                reason = allowed ? nil : "\(file.module) imports \(module), which is not below it"
            } else if let users = foreign[module] {
                reason =
                    users.contains(file.module)
                    ? nil : "only \(users.sorted().joined(separator: ", ")) may import \(module)"
            } else {
                reason = "\(module) is a new dependency: say in Layers.swift who may use it"
            }
            if let reason { breaches.append(Breach(path: file.path, line: index + 1, reason: reason)) }
        }
        return breaches
    },
    breaking: ("HTTP1/MadeUp.swift", "import Primitives\npackage import Gateway\n"),
    keeping: ("Gateway/MadeUp.swift", "import Primitives\npackage import HTTP1\n"))
