"""The test files that are started first, since a run is over when its longest file is."""

# By CPU seconds, the longest first; but the first two do not wait for the finished run, which the third then makes.
LONGEST_FIRST = (
    "e2e/test_demo.py",
    "e2e/test_stories.py",
    "workflow/test_staleness.py",
    "e2e/test_crashes.py",
    "workflow/test_grids_and_bases.py",
    "unit/engines/mlx/test_process_group.py",
    "unit/engines/torch/test_torch_training.py",
    "workflow/test_bake_off_chain.py",
    "workflow/test_one_run_at_a_time.py",
    "e2e/test_machine_faults.py",
    "e2e/test_tiny.py",
    "workflow/test_sigterm.py",
    "e2e/test_ui_pages.py",
    "e2e/test_pages.py",
    "workflow/test_bad_inputs_as_a_person.py",
    "workflow/test_hostile_input.py",
    "workflow/test_ctrl_c.py",
    "workflow/test_command_line.py",
    "workflow/test_plan.py",
    "workflow/test_messages.py",
    "unit/package/test_imatrix.py",
    "unit/package/test_products.py",
    "unit/package/test_faults.py",
    "unit/package/test_served_adapters.py",
)
