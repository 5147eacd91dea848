// The one way to a `Configuration`: file, overrides, variables, checks, in this order.

extension Configuration {
    /// Reads the file, then applies overrides (`KEY=VALUE`, a later one wins) and variables.
    /// - Throws: every error at once.
    package static func load(
        path: String, overrides: [String] = [], environment: [String: String]
    ) throws(ConfigurationErrors) -> Configuration {
        let text: String
        do throws(ConfigurationError) {
            text = try ConfigurationFile.read(path)
        } catch {
            throw ConfigurationErrors([error])
        }
        return try parse(text, file: path, overrides: overrides, environment: environment)
    }

    /// The same from text that somebody has read already.
    /// - Parameters:
    ///   - file: its name in errors.
    ///   - examine: what else is wrong with what was read; asked also where there are errors, so that all are found at once.
    package static func parse(
        _ text: String, file: String, overrides: [String] = [], environment: [String: String] = [:],
        log: SettingsLog? = nil, examine: (Configuration) -> [Finding] = { _ in [] }
    ) throws(ConfigurationErrors) -> Configuration {
        try parse(text, file: file, own: [], overrides: overrides, environment: environment, log: log, examine: examine)
    }

    /// - Parameter own: what stands above the text and below the overrides.
    static func parse(
        _ text: String, file: String, own: [OwnSetting], overrides: [String], environment: [String: String],
        log: SettingsLog?, examine: (Configuration) -> [Finding]
    ) throws(ConfigurationErrors) -> Configuration {
        var parsed: [Override] = []
        var errors: [ConfigurationError] = []
        for setting in own {
            // As it was read from the node's file.
            if let override = try? Override(setting.text, by: setting.origin) { parsed.append(override) }
        }
        for text in overrides {
            do throws(Invalid) {
                parsed.append(try Override(text))
            } catch {
                let key = String(text.prefix { $0 != "=" })
                errors.append(ConfigurationError(place: .override(key: key), key: nil, message: error.message))
            }
        }
        var root: Value
        var repeated: [Document.Failure] = []
        do throws(Document.Failure) {
            root = try Document.parse(text, repeated: &repeated)
        } catch {
            let diagnostics = Diagnostics(file: file, overrides: [])
            for failure in repeated + [error] { diagnostics.report(failure.message, at: failure.origin) }
            throw ConfigurationErrors(diagnostics.errors + errors)
        }
        for index in parsed.indices {
            do throws(Invalid) {
                try parsed[index].apply(to: &root, index: index)
            } catch {
                errors.append(ConfigurationError(place: parsed[index].place, key: nil, message: error.message))
            }
        }
        var diagnostics = Diagnostics(file: file, overrides: parsed, log: log)
        for failure in repeated { diagnostics.report(failure.message, at: failure.origin) }
        expandVariables(in: &root, path: "", environment, diagnostics)
        diagnostics.beginReading()
        var configuration = Configuration(MappingReader(root, path: "", diagnostics: diagnostics))
        // What stands in a misspelt section is checked as what was meant.
        var rereadings = 0
        while let next = diagnostics.forMisspelt(), rereadings < Bounds.rereadingsMax {
            rereadings += 1
            rename(diagnostics.misspelt, in: &root)
            diagnostics = next
            configuration = Configuration(MappingReader(root, path: "", diagnostics: diagnostics))
        }
        for finding in examine(configuration) { diagnostics.report(finding) }
        errors = diagnostics.errors + errors
        guard errors.isEmpty else { throw ConfigurationErrors(errors) }
        return configuration
    }

    private static func rename(_ meant: [Origin: String], in value: inout Value) {
        switch value.content {
        case .sequence(var elements):
            for index in elements.indices { rename(meant, in: &elements[index]) }
            value.content = .sequence(elements)
        case .mapping(var entries):
            for index in entries.indices {
                if let name = meant[entries[index].origin] { entries[index].key = name }
                rename(meant, in: &entries[index].value)
            }
            value.content = .mapping(entries)
        case .scalar, .null, .invalid: return
        }
    }

    private static func expandVariables(
        in value: inout Value, path: String, _ environment: [String: String], _ diagnostics: Diagnostics
    ) {
        switch value.content {
        case .scalar(let text):
            do throws(Invalid) {
                value.content = .scalar(try Interpolation.expand(text, environment: environment))
            } catch {
                diagnostics.report(error.message, at: value.origin, key: path.isEmpty ? nil : path)
                value.content = .invalid
            }
        case .sequence(var elements):
            for index in elements.indices {
                expandVariables(in: &elements[index], path: "\(path)[\(index)]", environment, diagnostics)
            }
            value.content = .sequence(elements)
        case .mapping(var entries):
            for index in entries.indices {
                let key = pathStep(entries[index].key)
                expandVariables(
                    in: &entries[index].value, path: path.isEmpty ? key : "\(path).\(key)", environment, diagnostics)
            }
            value.content = .mapping(entries)
        case .null, .invalid:
            return
        }
    }
}

extension Configuration {
    /// Valid where the reader's diagnostics have no error afterwards.
    init(_ map: MappingReader) {
        gateway = Gateway(map.section("gateway"))
        auth = map.optionalSection("auth").map { Auth($0) }
        rateLimit = map.optionalSection("rateLimit").map { RateLimit($0) }
        tracing = map.optionalSection("tracing").map { Tracing($0) }
        let follow = map.section("config")
        config = Follow(from: follow.read("from", default: .file, choice))
        if config.from == .redis, rateLimit?.redisURL == nil {
            follow.report("there is no Redis to read it from: set rateLimit.redisURL", at: "from")
        }
        follow.finish()
        if !map.has("services") {
            map.reportMissing("services", hint: "add at least one service with name, path and instances")
        }
        let elements = map.takeList("services", max: Bounds.servicesMax)
        if let elements, elements.isEmpty { map.report("an empty list; add at least one service", at: "services") }
        var services: [Service] = []
        var names: [String: String] = [:]
        var paths: [String: String] = [:]
        for (value, path) in elements ?? [] {
            let inner = MappingReader(value, path: path, diagnostics: map.diagnostics)
            let service = Service(inner, defaults: gateway)
            if !service.name.isEmpty, let first = names[service.name] {
                inner.report("\(quoted(service.name)) is the name of \(first) already; give it another", at: "name")
            }
            if !service.path.isEmpty, let first = paths[service.path] {
                inner.report("\(quoted(service.path)) is the path of \(first) already; give it another", at: "path")
            }
            names[service.name] = names[service.name] ?? path
            paths[service.path] = paths[service.path] ?? path
            services.append(service)
        }
        self.services = services
        checkPolicies(map)
        checkAuth(map)
        map.finish()
    }
}
