//! Each scenario of `tests/scenarios` as a case of its own. How to write one: `tests/scenarios/README.md`.

use std::path::PathBuf;

use shardgate_tests::scenario;

/// What a scenario is called here: its file's name without the number.
fn case_of(path: &std::path::Path) -> String {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    stem.split_once('-').map_or_else(String::new, |(_, name)| name.replace('-', "_"))
}

fn check(case: &str) {
    let file: Vec<PathBuf> = scenario::files().into_iter().filter(|path| case_of(path) == case).collect();
    assert_eq!(file.len(), 1, "{case}: {file:?}");
    if let Err(said) = scenario::check(&file[0]) {
        panic!("{said}");
    }
}

macro_rules! cases {
    ($($case:ident)*) => {
        $(
            #[test]
            fn $case() {
                check(stringify!($case));
            }
        )*

        const CASES: &[&str] = &[$(stringify!($case)),*];
    };
}

cases! {
    first_join
    known_key_asks_nobody
    race_of_two_first_joins
    second_join_waits_for_the_first
    shard_dies
    flapping_shard_costs_one_move
    late_tunnel_is_told
    budget_follows_the_distance
    home_answers_late_own_proposal
    home_answers_late_anothers_proposal
    home_killed_after_answering_one
    home_and_next_home_killed
    hung_home_costs_one_budget
    both_believe_the_other_is_home
    passed_on_once
    lone_decision_and_later_claim
    home_restarted_third_node_knows
    home_restarts_while_asked
    whole_mesh_starts_cold
    two_cold_nodes_and_a_slow_full_one
    ready_with_an_unreachable_peer
    ready_by_override
    restarted_node_is_taught
    peers_list_changes
    cursor_belongs_to_one_start
    cut_and_healed
    both_sides_move_to_one_generation
    three_sides_healed_in_any_order
    set_on_both_sides_of_a_cut
    a_c_cut_while_a_and_b_hold
    small_side_drops_without_ending
    stand_in_home_ends_later
    one_way_path
    request_between_lease_and_end
    lease_report_and_renewal
    first_use_elsewhere_late_in_the_lease
    natural_end
    home_hangs_for_good
    tunnel_holds_its_room
    end_meets_a_tunnel_end_first
    end_meets_a_tunnel_tunnel_first
    generation_5_comes_back_without_tunnels
    generation_5_comes_back_with_tunnels
    clear_of_a_held_room
    zombie
    short_break_continues_from_the_log
    long_break_reconciles_the_difference
    broken_reconciliation_begins_anew
    bulk_does_not_delay_updates
    busy_mesh_is_in_agreement
    unequal_capacities
    everything_held_and_full
    two_protocol_versions
    ended_rooms_take_no_place
    hostile_entries
    hostile_lifetimes
    hostile_numbers
    shard_dies_for_many_at_once
    path_cut_kept_by_a_peer
    home_lost_while_it_gathers
    late_answer_counts_nothing
    nobody_to_ask_alone
    maint_asks_nobody
    split_brain_the_fewest_move
    split_brain_as_many_on_each_side
    arbiter_dies_with_its_verdict
    verdict_reaches_half
    arbiter_missing
    the_many_stay_though_three_saw_it_down
    live_move_needs_no_verdict
    flapping_views
    verdict_is_final
    three_shards
    newcomers_join_who_is_there
    nobody_goes_back_to_a_dead_shard
    who_comes_is_asked_too
    what_was_said_before_a_pause
    newcomer_known_to_some
    who_would_end_it_left
}

#[test]
fn every_file_is_a_case() {
    let files: Vec<String> = scenario::files().iter().map(|path| case_of(path)).collect();
    assert_eq!(files, CASES, "the list of cases is that of the files, in their order");
}
