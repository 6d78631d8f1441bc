# Sourced by scripts/{pretrain,finetune_mole,finetune_lora}.sh: starts `llava-mole train` on every
# rank of one or many machines, or once with --dry-run.
#
#   launch CONFIG [FLAG or key=value ...]

usage() {
    cat <<USAGE
usage: bash $0 [--dry-run] [--resume auto|never|PATH] [key=value ...]

Everything is passed on to \`llava-mole train\`. --dry-run starts no ranks. Variables:

  CONFIG           another run config                              ($1)
  OUTPUT_DIR       run directory                                   (the config's)
  LANGUAGE_MODEL   folder or hub name of Vicuna-7B-v1.5            (the config's)
  VISION_WEIGHTS   open_clip tag or weights file of the ViT        (the config's)
  PROJECTOR        stage-1 run, mm_projector.bin or .safetensors   (the config's)
  DEEPSPEED        DeepSpeed JSON; none turns DeepSpeed off        (the config's)
  PYTHON           interpreter                    (.venv/bin/python if there, else python3)

  NPROC_PER_NODE   ranks on each machine          (its GPUs, or those of CUDA_VISIBLE_DEVICES)
  NNODES           machines                       (1, or SLURM's)
  NODE_RANK        this machine, 0 to NNODES-1    (0, or SLURM's)
  MASTER_ADDR      machine 0                      (localhost, or SLURM's first)
  MASTER_PORT      a free port on it              (29500)
  HOSTFILE         DeepSpeed hostfile: starts all machines from this one, over ssh

One machine:    bash $0
Two machines:   NNODES=2 NODE_RANK=0 MASTER_ADDR=10.0.0.1 bash $0     (and NODE_RANK=1 on the other)
A hostfile:     HOSTFILE=hosts.txt bash $0
SLURM:          sbatch --nodes=8 --gres=gpu:8 --ntasks-per-node=1 $0
Machines need the same data, output and data.cache_dir (~/.cache/llava_mole) at the same paths.
USAGE
}

count_gpus() {
    local gpus=0 visible
    if [[ -n "${CUDA_VISIBLE_DEVICES:-}" ]]; then
        IFS=, read -ra visible <<< "$CUDA_VISIBLE_DEVICES"
        gpus=${#visible[@]}
    elif command -v nvidia-smi > /dev/null; then
        # Of a GPU that is cut into MIG instances they follow on lines of their own.
        gpus=$(nvidia-smi --list-gpus 2> /dev/null | grep -c '^GPU ' || true)
    fi
    echo $((gpus > 0 ? gpus : 1))
}

launch() {
    local config="${CONFIG:-$1}"
    local default_config="$1"
    shift
    local dry_run=no argument
    for argument in "$@"; do
        case "$argument" in
            -h | --help)
                usage "$default_config"
                return 0
                ;;
            --dry-run) dry_run=yes ;;
        esac
    done

    local python="${PYTHON:-}"
    if [[ -z "$python" ]]; then
        python=python3
        if [[ -x .venv/bin/python ]]; then python=.venv/bin/python; fi
    fi
    # The command wants all flags before the first key=value.
    local flags=() overrides=()
    if [[ -n "${OUTPUT_DIR:-}" ]]; then overrides+=("output_dir=$OUTPUT_DIR"); fi
    if [[ -n "${LANGUAGE_MODEL:-}" ]]; then overrides+=("model.language_model=$LANGUAGE_MODEL"); fi
    if [[ -n "${VISION_WEIGHTS:-}" ]]; then overrides+=("model.vision_pretrained=$VISION_WEIGHTS"); fi
    if [[ -n "${PROJECTOR:-}" ]]; then overrides+=("model.projector=$PROJECTOR"); fi
    case "${DEEPSPEED:-}" in
        "") ;;
        none) overrides+=("train.deepspeed=null") ;;
        *) flags+=(--deepspeed "$DEEPSPEED") ;;
    esac
    for argument in "$@"; do
        if [[ "$argument" =~ ^[A-Za-z_][A-Za-z0-9_.]*= ]]; then
            overrides+=("$argument")
        else
            flags+=("$argument")
        fi
    done

    local nnodes="${NNODES:-${SLURM_NNODES:-1}}"
    local nproc="${NPROC_PER_NODE:-${SLURM_GPUS_ON_NODE:-$(count_gpus)}}"
    if [[ "$dry_run" == yes ]]; then flags+=(--ranks $((nnodes * nproc))); fi
    local command=(llava_mole.cli.main train --config "$config" "${flags[@]}" "${overrides[@]}")
    if [[ "$dry_run" == yes ]]; then
        exec "$python" -m "${command[@]}"
    fi
    export OMP_NUM_THREADS="${OMP_NUM_THREADS:-4}" TOKENIZERS_PARALLELISM=false

    if [[ -n "${HOSTFILE:-}" ]]; then
        local deepspeed
        deepspeed="$(dirname "$(command -v "$python")")/deepspeed"
        [[ -x "$deepspeed" ]] || deepspeed=deepspeed
        exec "$deepspeed" --hostfile "$HOSTFILE" --no_local_rank \
            ${MASTER_ADDR:+--master_addr "$MASTER_ADDR"} --master_port "${MASTER_PORT:-29500}" \
            --module "${command[@]}"
    fi

    # In a batch script of several machines: one more of these per machine, each its own node.
    if [[ -n "${SLURM_JOB_ID:-}" && "$nnodes" -gt 1 && -z "${LLAVA_MOLE_NODE:-}" ]]; then
        local first
        first=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
        export LLAVA_MOLE_NODE=1 MASTER_ADDR="${MASTER_ADDR:-${first%%$'\n'*}}"
        exec srun --ntasks="$nnodes" --ntasks-per-node=1 \
            bash "scripts/$(basename "$default_config" .yaml).sh" "$@"
    fi

    exec "$python" -m torch.distributed.run \
        --nnodes "$nnodes" --nproc-per-node "$nproc" \
        --node-rank "${NODE_RANK:-${SLURM_NODEID:-0}}" \
        --master-addr "${MASTER_ADDR:-localhost}" --master-port "${MASTER_PORT:-29500}" \
        -m "${command[@]}"
}
