//! Configured hooks: add, pause, remove. The leader has checked kind and configuration before it
//! proposes the command, with the hook kinds of its own release.

use tidewater_common::ids::{Revision, TableId};
use tidewater_hook_kinds::EVENTS_KIND;
use tidewater_proto::v1;

use super::requests::IdentifiedRequest;
use super::{CommandError, CommandReply, HookCommandError, Rules, cursors, hook_procedures};
use crate::catalog::{CatalogChange, CursorWork, Hook, MetaState, OutcomeKind};

/// Maximum number of hooks in a cluster: every node calls each of them for every event.
pub(super) const MAX_HOOKS: usize = 256;
/// Maximum number of durable hooks in a cluster: each has a cursor for each region.
pub(super) const MAX_DURABLE_HOOKS: usize = 16;
/// Maximum length of a hook's name, in characters.
const MAX_NAME_CHARS: usize = 100;
/// Maximum length of a hook's configuration, in bytes.
const MAX_CONFIG_BYTES: usize = 16 * 1024;

pub(super) fn add(
    state: &MetaState,
    request: &v1::AddHookRequest,
    rules: Rules,
) -> Result<(CommandReply, CatalogChange), CommandError> {
    let key = (request.request_id.as_str(), request.name.as_str());
    let identified = IdentifiedRequest::new(rules, OutcomeKind::AddHook, key, request)?;
    if identified.find_repeated(state)?.is_some() {
        return Ok((CommandReply::Done, CatalogChange::default()));
    }
    check_name(&request.name)?;
    if request.config.len() > MAX_CONFIG_BYTES {
        return Err(HookCommandError::HookConfigTooLong(MAX_CONFIG_BYTES).into());
    }
    let table = match request.table.as_str() {
        "" => None,
        name => {
            let table = state.table_named(name);
            let table = table.ok_or_else(|| CommandError::TableNotFound(name.to_owned()))?;
            if request.kind == EVENTS_KIND && table.options.holds_events {
                return Err(HookCommandError::HookOnEvents(name.to_owned()).into());
            }
            Some(table.id)
        }
    };
    if state.hook(&request.name).is_some() {
        return Err(HookCommandError::HookExists(request.name.clone()).into());
    }
    if state.hooks().count() >= MAX_HOOKS {
        return Err(HookCommandError::TooManyHooks(MAX_HOOKS).into());
    }
    if state.hook_procedure(&request.name).is_some() {
        return Err(HookCommandError::HookBeingRemoved(request.name.clone()).into());
    }
    if request.durable && hook_procedures::hooks_with_cursors(state) >= MAX_DURABLE_HOOKS {
        return Err(HookCommandError::TooManyDurableHooks(MAX_DURABLE_HOOKS).into());
    }
    let hook = Hook {
        name: request.name.clone(),
        kind: request.kind.clone(),
        config: request.config.clone(),
        table,
        paused: false,
        generation: Revision(state.header().revision.get().saturating_add(1)),
        durable: request.durable,
    };
    let mut change = CatalogChange {
        outcome: Some(identified.outcome(state, TableId(0))),
        ..CatalogChange::default()
    };
    match cursors::start_of(request)? {
        Some(work) if rules.has_hook_procedures() => {
            change.hook_procedures = vec![hook_procedures::begin(&hook, work)];
        }
        Some(start) => change.cursors = cursors::for_new_hook(state, &hook, start),
        None => {}
    }
    change.hooks = vec![hook];
    Ok((CommandReply::Done, change))
}

pub(super) fn set_paused(
    state: &MetaState,
    request: &v1::SetHookPausedRequest,
) -> Result<CatalogChange, CommandError> {
    let hook = state
        .hook(&request.name)
        .ok_or_else(|| CommandError::Hook(HookCommandError::HookNotFound(request.name.clone())))?;
    if hook.paused == request.paused {
        return Ok(CatalogChange::default());
    }
    let hook = Hook { paused: request.paused, ..hook.as_ref().clone() };
    Ok(CatalogChange { hooks: vec![hook], ..CatalogChange::default() })
}

pub(super) fn remove(
    state: &MetaState,
    request: &v1::RemoveHookRequest,
    rules: Rules,
) -> Result<(CommandReply, CatalogChange), CommandError> {
    let key = (request.request_id.as_str(), request.name.as_str());
    let identified = IdentifiedRequest::new(rules, OutcomeKind::RemoveHook, key, request)?;
    if identified.find_repeated(state)?.is_some() {
        return Ok((CommandReply::Done, CatalogChange::default()));
    }
    let Some(hook) = state.hook(&request.name) else {
        return Err(HookCommandError::HookNotFound(request.name.clone()).into());
    };
    let mut change = CatalogChange {
        hook_deletes: vec![request.name.clone()],
        outcome: Some(identified.outcome(state, TableId(0))),
        ..CatalogChange::default()
    };
    if !rules.has_hook_procedures() {
        change.cursor_deletes = cursors::keys_of_hook(state, &request.name);
    } else if state.cursors().count(&request.name) > 0 {
        // Replaces the procedure of an unfinished addition.
        change.hook_procedures = vec![hook_procedures::begin(hook, CursorWork::Delete)];
    } else if hook.durable {
        change.hook_procedure_deletes = vec![request.name.clone()];
    }
    Ok((CommandReply::Done, change))
}

/// Returns the names of the hooks that are deleted with a table, which is the only one that they
/// observe. A durable hook with cursors is not among them: it is deleted later, with its last cursor. The
/// procedure of a hook without cursors ends with its next step.
pub(super) fn deleted_with_table(state: &MetaState, table: TableId) -> Vec<String> {
    let only = state.hooks().filter(|hook| hook.table == Some(table));
    let deleted = only.filter(|hook| state.cursors().count(&hook.name) == 0);
    deleted.map(|hook| hook.name.clone()).collect()
}

/// Checks a hook's name, which is used in headers, metrics and command lines.
fn check_name(name: &str) -> Result<(), CommandError> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.is_empty() || name.len() > MAX_NAME_CHARS || !name.bytes().all(fits) {
        return Err(HookCommandError::HookName(name.chars().take(MAX_NAME_CHARS).collect()).into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tidewater_proto::v1::meta_command::Kind;

    use super::*;
    use crate::commands::testing::{
        directory, drop_table, raise_to_highest, run, table, with_groups,
    };

    fn adding(request: u64, name: &str, table: &str) -> v1::AddHookRequest {
        v1::AddHookRequest {
            request_id: directory(request),
            name: name.into(),
            kind: "jsonl".into(),
            config: "{}".into(),
            table: table.into(),
            ..v1::AddHookRequest::default()
        }
    }

    fn add(state: &mut MetaState, request: u64, name: &str) -> Result<CommandReply, CommandError> {
        run(state, Kind::AddHook(adding(request, name, "")))
    }

    fn remove(
        state: &mut MetaState,
        request: u64,
        name: &str,
    ) -> Result<CommandReply, CommandError> {
        let request = v1::RemoveHookRequest { request_id: directory(request), name: name.into() };
        run(state, Kind::RemoveHook(request))
    }

    fn names(state: &MetaState) -> Vec<&str> {
        state.hooks().map(|hook| hook.name.as_str()).collect()
    }

    #[test]
    fn hook_is_added_paused_resumed_and_removed() {
        let mut state = with_groups(1, 1);
        add(&mut state, 1, "b").unwrap();
        add(&mut state, 2, "a").unwrap();
        assert_eq!(names(&state), ["a", "b"]);
        let version = state.catalog_version();
        let pause =
            |paused| Kind::SetHookPaused(v1::SetHookPausedRequest { name: "b".into(), paused });
        let revision = state.header().revision;
        run(&mut state, pause(true)).unwrap();
        run(&mut state, pause(true)).unwrap();
        assert!(state.hook("b").unwrap().paused);
        assert_eq!(state.header().revision.get(), revision.get() + 1);
        run(&mut state, pause(false)).unwrap();
        remove(&mut state, 3, "b").unwrap();
        assert_eq!(names(&state), ["a"]);
        assert_eq!(state.catalog_version(), version, "routes have not changed");
    }

    #[test]
    fn repeated_hook_requests_change_nothing() {
        let mut state = with_groups(1, 1);
        add(&mut state, 1, "a").unwrap();
        let added = state.clone();
        add(&mut state, 1, "a").unwrap();
        assert_eq!(state, added);
        assert_eq!(
            add(&mut state, 2, "a"),
            Err(CommandError::Hook(HookCommandError::HookExists("a".into())))
        );
        remove(&mut state, 3, "a").unwrap();
        let removed = state.clone();
        remove(&mut state, 3, "a").unwrap();
        assert_eq!(state, removed);
        assert_eq!(
            remove(&mut state, 4, "a"),
            Err(CommandError::Hook(HookCommandError::HookNotFound("a".into())))
        );
        let first = added.hook("a").unwrap().generation;
        add(&mut state, 5, "a").unwrap();
        assert_ne!(state.hook("a").unwrap().generation, first);
        let pause = v1::SetHookPausedRequest { name: "b".into(), paused: true };
        let unknown = run(&mut state, Kind::SetHookPaused(pause));
        assert_eq!(unknown, Err(CommandError::Hook(HookCommandError::HookNotFound("b".into()))));
    }

    #[test]
    fn invalid_hooks_are_rejected() {
        let mut state = with_groups(1, 1);
        for name in ["", "a b", "ü", "a\n", &"x".repeat(MAX_NAME_CHARS + 1)] {
            assert!(
                matches!(
                    add(&mut state, 1, name),
                    Err(CommandError::Hook(HookCommandError::HookName(_)))
                ),
                "{name:?}"
            );
        }
        let long =
            v1::AddHookRequest { config: "x".repeat(MAX_CONFIG_BYTES + 1), ..adding(1, "a", "") };
        let refused = run(&mut state, Kind::AddHook(long));
        assert_eq!(
            refused,
            Err(CommandError::Hook(HookCommandError::HookConfigTooLong(MAX_CONFIG_BYTES)))
        );
        let missing = run(&mut state, Kind::AddHook(adding(1, "a", "t")));
        assert_eq!(missing, Err(CommandError::TableNotFound("t".into())));
        for number in 0..MAX_HOOKS as u64 {
            add(&mut state, 100 + number, &format!("h{number}")).unwrap();
        }
        assert_eq!(
            add(&mut state, 1, "a"),
            Err(CommandError::Hook(HookCommandError::TooManyHooks(MAX_HOOKS)))
        );
    }

    #[test]
    fn events_hook_is_refused_on_tables_of_events() {
        let mut state = with_groups(1, 1);
        raise_to_highest(&mut state);
        let of_events = v1::CreateTableRequest { holds_events: true, ..table(1, "events") };
        run(&mut state, Kind::CreateTable(of_events)).unwrap();
        run(&mut state, Kind::CreateTable(table(2, "t"))).unwrap();
        let add = |state: &mut MetaState, request, kind: &str, table: &str| {
            let name = format!("{kind}-{request}");
            let hook = v1::AddHookRequest { kind: kind.into(), ..adding(request, &name, table) };
            run(state, Kind::AddHook(hook))
        };
        let before = state.clone();
        // Apply depends on the name.
        assert_eq!(EVENTS_KIND, "events");
        let refused = add(&mut state, 3, EVENTS_KIND, "events").unwrap_err();
        let expected = HookCommandError::HookOnEvents("events".into());
        assert_eq!(refused, CommandError::Hook(expected));
        assert_eq!(refused.reason(), v1::Reason::InvalidArgument);
        assert_eq!(state, before);
        add(&mut state, 4, "jsonl", "events").unwrap();
        add(&mut state, 5, EVENTS_KIND, "t").unwrap();
        // On all tables: the nodes leave out its calls for tables that hold events.
        add(&mut state, 6, EVENTS_KIND, "").unwrap();
    }

    #[test]
    fn hook_of_one_table_is_deleted_with_the_table() {
        let mut state = with_groups(1, 1);
        run(&mut state, Kind::CreateTable(table(1, "t"))).unwrap();
        let id = state.table_named("t").unwrap().id;
        run(&mut state, Kind::AddHook(adding(2, "only", "t"))).unwrap();
        add(&mut state, 3, "all").unwrap();
        run(&mut state, drop_table(4, "t")).unwrap();
        assert_eq!(names(&state), ["all", "only"], "it still receives the drop");
        let finish = v1::FinishDropTable { table_id: id.get() };
        run(&mut state, Kind::FinishDropTable(finish)).unwrap();
        assert_eq!(names(&state), ["all"]);
    }
}
